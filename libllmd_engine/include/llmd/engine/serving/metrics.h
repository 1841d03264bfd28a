// vLLM's /metrics: names, labels and buckets of its V1 engine, with the older spellings beside
// them. Totals that the engine counts are copied from EngineStats when the page is written; what
// only the serving layer sees (latencies, request shapes, finish reasons) is observed as it
// happens. Every series exists from the start. Thread-safe.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/engine/engine.h"
#include "llmd/metrics.h"

namespace llmd::engine::serving {

struct ChildTimes;

// Facts of one finished child request.
struct FinishedRequest {
  std::string_view reason;  // "stop", "length", "abort", "error"
  int prompt_tokens = 0, generation_tokens = 0, cached_tokens = 0, max_tokens = 0;
};

class ServingMetrics {
 public:
  // `registry` and `engine` must outlive this. `engine_index` is the data-parallel rank.
  ServingMetrics(MetricsRegistry& registry, const Engine& engine, std::string_view model_name,
                 int engine_index, int max_model_len, std::string_view cache_dtype);

  void FirstToken(Duration since_arrival);
  void InterToken(Duration since_last);
  void RequestShape(int n, int max_tokens);
  void Finished(const FinishedRequest& request, const ChildTimes& times, TimePoint now);
  // Copies the engine's totals. Called before the page is written.
  void Refresh();
  // Refresh, then the page.
  std::string Expose();

 private:
  struct EngineTotals;
  Histogram& Seconds(std::string_view name, std::string_view help, std::vector<double> bounds);
  Histogram& Tokens(std::string_view name, std::string_view help);
  void AddRequestHistograms();
  void AddEngineSeries();
  void AddCacheInfo(std::string_view cache_dtype);

  MetricsRegistry& registry_;
  const Engine& engine_;
  const Labels labels_;
  const std::vector<double> token_bounds_;
  Histogram *ttft_, *itl_, *tpot_, *e2e_, *queue_, *inference_, *prefill_, *decode_;
  Histogram *prompt_tokens_, *generation_tokens_, *max_generation_tokens_, *params_max_tokens_,
      *prefill_computed_, *params_n_;
  std::array<Counter*, 5> success_{};

  struct Copied {
    Counter* counter;
    uint64_t EngineStats::* field;
  };
  struct Shown {
    Gauge* gauge;
    double (*read)(const EngineStats&);
  };
  std::mutex mutex_;  // one Refresh at a time
  std::vector<Copied> copied_;
  std::vector<Shown> shown_;
};

}  // namespace llmd::engine::serving
