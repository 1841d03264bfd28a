// What a proxy counts about its requests: numbers, times, bytes and tokens by three labels of its
// choice. Each loop counts in memory of its own (a shard), without locks and atomics, and hands
// that over to the registry a few times a second.
//
// Label sets are bounded: the first RequestSeries::kMaxSeries combinations have series of their
// own, later ones share one whose labels read "other".
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::services {

inline constexpr std::string_view kOther = "other";

// The first so many names are kept, later ones read "other". Thread-safe.
class NameCap {
 public:
  static constexpr size_t kMaxBytes = 128;  // longer names are cut to them
  explicit NameCap(size_t most) : most_(most) {}

  // One loop's view of it: asks for a name at most once. Thread-compatible.
  class Reader {
   public:
    explicit Reader(NameCap& cap) : cap_(cap) {}
    // `name` when it is kept, else "other". With `admit` it may become one of those kept.
    std::string_view Of(std::string_view name, bool admit);

   private:
    NameCap& cap_;
    std::set<std::string, std::less<>> known_;
    bool complete_ = false;  // the cap is full, and known_ is all of it
  };

 private:
  bool Has(std::string_view name, bool admit);

  const size_t most_;
  std::atomic<bool> full_{false};
  std::mutex mutex_;
  std::set<std::string, std::less<>> names_;  // guarded by mutex_
};

// Thread-compatible; `to` outlives it.
class LocalCounter {
 public:
  explicit LocalCounter(Counter& to) : to_(to) {}
  void Add(double by = 1) { value_ += by; }
  void HandOver();

 private:
  Counter& to_;
  double value_ = 0;
};

// Thread-compatible; `to` outlives it.
class LocalHistogram {
 public:
  explicit LocalHistogram(Histogram& to);
  void Observe(double v);
  void Observe(Duration d) { Observe(std::chrono::duration<double>(d).count()); }
  void HandOver();

 private:
  struct Bucket {
    uint64_t count = 0;
    double sum = 0;
  };
  Histogram& to_;
  std::vector<Bucket> buckets_;
  bool any_ = false;
};

class RequestShard;

// What the shards of all loops share. Thread-safe; `registry` outlives it.
class RequestSeries {
 public:
  static constexpr size_t kMaxSeries = 1024;
  using LabelValues = std::array<std::string_view, 3>;

  // Families are called `prefix` + name, requests `prefix` + `requests`. `labels` are the names of
  // the three labels; requests have the label `status` besides. Histograms show from the start, by
  // a series of zeros with empty labels.
  RequestSeries(MetricsRegistry& registry, std::string prefix, std::string requests,
                std::array<std::string, 3> labels);

 private:
  friend class RequestShard;
  using Values = std::array<std::string, 3>;
  Labels Named(const Values& values) const;
  bool Admit(const Values& values);
  std::vector<Values> All();
  struct Times {
    Histogram &ttft, &gap, &queue, &whole;
  };
  Times AddTimes(const Labels& labels);
  Counter& AddTokens(const Labels& labels, const char* type);

  MetricsRegistry& registry_;
  const std::string prefix_, requests_;
  const std::array<std::string, 3> labels_;
  std::atomic<bool> full_{false};
  std::mutex mutex_;
  std::set<Values> admitted_;  // guarded by mutex_
};

// One loop's counts. Thread-compatible.
class RequestShard {
 public:
  // Of one combination of labels; lives as long as the shard.
  class Series {
   public:
    void Request(int status);
    LocalHistogram ttft, gap, queue, whole;
    LocalCounter request_bytes, response_bytes, prompt_tokens, completion_tokens, estimated_tokens;

   private:
    friend class RequestShard;
    struct ByStatus {
      int status;
      LocalCounter count;
    };
    Series(RequestSeries& all, const RequestSeries::Times& times, Labels labels);
    void HandOver();
    RequestSeries& all_;
    const Labels labels_;
    std::vector<ByStatus> requests_;
    bool touched_ = false;
  };

  explicit RequestShard(RequestSeries& all) : all_(all) {}
  ~RequestShard() { HandOver(); }
  RequestShard(const RequestShard&) = delete;
  RequestShard& operator=(const RequestShard&) = delete;

  // To be looked up once a request.
  Series& Of(const RequestSeries::LabelValues& values);
  // `series` counts something now: to be called before it does.
  void Touch(Series& series) {
    if (series.touched_) return;
    series.touched_ = true;
    touched_.push_back(&series);
  }
  void HandOver();

 private:
  Series& Make(const RequestSeries::Values& values);
  Series& Meet(const RequestSeries::LabelValues& values);
  static void KeyOf(const RequestSeries::LabelValues& values, std::string& key);

  RequestSeries& all_;
  std::unordered_map<std::string, std::unique_ptr<Series>> series_;
  std::vector<Series*> touched_;
  std::string key_;
  bool complete_ = false;  // no more are admitted, and all that were are here
};

}  // namespace llmd::services
