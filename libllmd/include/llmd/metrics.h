// Counters, gauges and histograms with labels, and their Prometheus text. A MetricsRegistry is an
// object that is passed in; series live as long as it. Updating a series takes no lock and
// allocates nothing; look series up once and keep them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/clock.h"

namespace llmd {

using Labels = std::vector<std::pair<std::string, std::string>>;

// Thread-safe.
class Counter {
 public:
  void Add(double by = 1);
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Thread-safe.
class Gauge {
 public:
  void Set(double v) { value_.store(v, std::memory_order_relaxed); }
  void Add(double by);
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Thread-safe. Buckets are upper bounds, ascending, +Inf implied.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void Observe(double v, uint64_t times = 1);
  const std::vector<double>& bounds() const { return bounds_; }
  // Not cumulative; one more entry than bounds().
  std::vector<uint64_t> Counts() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }
  uint64_t count() const;

 private:
  const std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;
  std::atomic<double> sum_{0};
};

enum class MetricType { kCounter, kGauge, kHistogram };

// All metrics of one process part. Thread-safe. Asking for the same name and labels again gives the
// same object; the same name with another type or other buckets is our own bug (LLMD_CHECK).
class MetricsRegistry {
 public:
  // `clock` stamps <name>_created; it outlives the registry. Every series carries the `constant`
  // labels besides its own.
  explicit MetricsRegistry(const Clock& clock = SystemClock(), Labels constant = {});
  ~MetricsRegistry();
  // `name` is the exposed name: counters carry their _total here.
  Counter& AddCounter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& AddGauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& AddHistogram(std::string_view name, std::string_view help, std::vector<double> bounds,
                          const Labels& labels = {});
  // A gauge read at exposition time; `read` must be thread-safe and valid until the next call with
  // the same name and labels replaces it, or the registry ends.
  void AddGaugeCallback(std::string_view name, std::string_view help, const Labels& labels,
                        std::function<double()> read);
  // Gauges whose series come and go: `collect` gives them at exposition time. Thread-safe. They are
  // exposed as long as the returned handle is held; dropping it waits for an exposition under way.
  // Of two collectors that emit the same labels the counters are added up and the last gauge
  // counts.
  using GaugeEmit = std::function<void(const Labels&, double)>;
  [[nodiscard]] std::shared_ptr<const void> AddGaugeCollector(
      std::string_view name, std::string_view help,
      std::function<void(const GaugeEmit& emit)> collect);
  // The same for counters: what one emits may not sink while it is emitted.
  [[nodiscard]] std::shared_ptr<const void> AddCounterCollector(
      std::string_view name, std::string_view help,
      std::function<void(const GaugeEmit& emit)> collect);
  // The same objects exposed under a second name too (deprecated spellings), where a label may have
  // had another name (`old_label` instead of `label`). May come before the family itself.
  void AddAlias(std::string_view name, std::string_view alias, std::string_view label = "",
                std::string_view old_label = "");
  // With it off aliases are left out. On at first.
  void ExposeAliases(bool on);
  // With it on, each counter and histogram family also exposes <name>_created gauges, as Python's
  // client does.
  void ExposeCreated(bool on);

  // Prometheus text format 0.0.4, families sorted by name, series by labels, numbers as Python's
  // client prints them ("3.0"). Callbacks run without a lock held.
  std::string Expose() const;
  // One page of several registries: families of one name stand together. Those must agree in type.
  static std::string ExposeTogether(const std::vector<const MetricsRegistry*>& registries);

 private:
  std::shared_ptr<const void> AddCollector(MetricType type, std::string_view name,
                                           std::string_view help,
                                           std::function<void(const GaugeEmit&)> collect);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A number as Python's prometheus_client prints it: "3.0", "0.1", "1e-05", "1.234567e+06" from a
// million on, "1e+16",
// "+Inf", "NaN".
std::string FormatMetricValue(double v);

}  // namespace llmd
