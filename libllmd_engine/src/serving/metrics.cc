#include "llmd/engine/serving/metrics.h"

#include <algorithm>

#include "llmd/engine/serving/mailbox.h"

namespace llmd::engine::serving {
namespace {

constexpr std::array<std::string_view, 5> kReasons = {"stop", "length", "abort", "error",
                                                      "repetition"};

const std::vector<double> kTtftBounds = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                         1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kItlBounds = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                        .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kRequestBounds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                            30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

// 1, 2, 5, 10, 20, 50 … up to the longest request.
std::vector<double> OneTwoFive(int limit) {
  std::vector<double> bounds;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1, 2, 5}) {
      if (step * decade > limit) return bounds;
      bounds.push_back(step * decade);
    }
  }
}

double Secs(Duration d) {
  return std::chrono::duration<double>(d).count();
}

Labels With(Labels labels, std::string_view key, std::string_view value) {
  labels.emplace_back(key, value);
  return labels;
}

double Usage(const EngineStats& s) {
  if (s.total_blocks <= 0) return 0;
  return std::clamp(1.0 - static_cast<double>(s.free_blocks) / s.total_blocks, 0.0, 1.0);
}

}  // namespace

ServingMetrics::ServingMetrics(MetricsRegistry& registry, const Engine& engine,
                               std::string_view model_name, int engine_index, int max_model_len,
                               std::string_view cache_dtype)
    : registry_(registry),
      engine_(engine),
      labels_{{"model_name", std::string(model_name)}, {"engine", std::to_string(engine_index)}},
      token_bounds_(OneTwoFive(max_model_len)) {
  AddRequestHistograms();
  AddEngineSeries();
  AddCacheInfo(cache_dtype);
  for (size_t i = 0; i < kReasons.size(); ++i) {
    success_[i] = &registry_.AddCounter("vllm:request_success_total",
                                        "Count of successfully processed requests.",
                                        With(labels_, "finished_reason", kReasons[i]));
  }
}

Histogram& ServingMetrics::Seconds(std::string_view name, std::string_view help,
                                   std::vector<double> bounds) {
  return registry_.AddHistogram(name, help, std::move(bounds), labels_);
}

Histogram& ServingMetrics::Tokens(std::string_view name, std::string_view help) {
  return registry_.AddHistogram(name, help, token_bounds_, labels_);
}

void ServingMetrics::AddRequestHistograms() {
  ttft_ = &Seconds("vllm:time_to_first_token_seconds",
                   "Histogram of time to first token in seconds.", kTtftBounds);
  itl_ = &Seconds("vllm:inter_token_latency_seconds",
                  "Histogram of inter-token latency in seconds.", kItlBounds);
  registry_.AddAlias("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds");
  tpot_ = &Seconds("vllm:request_time_per_output_token_seconds",
                   "Histogram of mean time per output token of a request.", kItlBounds);
  e2e_ = &Seconds("vllm:e2e_request_latency_seconds",
                  "Histogram of end to end request latency in seconds.", kRequestBounds);
  queue_ = &Seconds("vllm:request_queue_time_seconds",
                    "Histogram of time spent in the WAITING phase.", kRequestBounds);
  inference_ = &Seconds("vllm:request_inference_time_seconds",
                        "Histogram of time spent in the RUNNING phase.", kRequestBounds);
  prefill_ = &Seconds("vllm:request_prefill_time_seconds",
                      "Histogram of time spent in the PREFILL phase.", kRequestBounds);
  decode_ = &Seconds("vllm:request_decode_time_seconds",
                     "Histogram of time spent in the DECODE phase.", kRequestBounds);
  prompt_tokens_ = &Tokens("vllm:request_prompt_tokens", "Number of prefill tokens processed.");
  generation_tokens_ =
      &Tokens("vllm:request_generation_tokens", "Number of generation tokens processed.");
  max_generation_tokens_ = &Tokens("vllm:request_max_num_generation_tokens",
                                   "Maximum number of requested generation tokens.");
  registry_.AddAlias("vllm:request_max_num_generation_tokens", "vllm:max_num_generation_tokens");
  params_max_tokens_ =
      &Tokens("vllm:request_params_max_tokens", "The max_tokens request parameter.");
  prefill_computed_ = &Tokens("vllm:request_prefill_kv_computed_tokens",
                              "New KV tokens computed during prefill, cached ones excluded.");
  params_n_ = &registry_.AddHistogram("vllm:request_params_n", "The n request parameter.",
                                      {1, 2, 5, 10, 20}, labels_);
}

void ServingMetrics::AddEngineSeries() {
  const auto count = [&](std::string_view name, std::string_view help,
                         uint64_t EngineStats::* field, const Labels& labels) {
    copied_.push_back({&registry_.AddCounter(name, help, labels), field});
  };
  const auto show = [&](std::string_view name, std::string_view help, const Labels& labels,
                        double (*read)(const EngineStats&)) {
    shown_.push_back({&registry_.AddGauge(name, help, labels), read});
  };
  show("vllm:num_requests_running", "Number of requests in model execution batches.", labels_,
       [](const EngineStats& s) -> double { return s.running; });
  show("vllm:num_requests_waiting", "Number of requests waiting to be processed.", labels_,
       [](const EngineStats& s) -> double { return s.waiting + s.waiting_for_remote; });
  constexpr std::string_view kByReason = "vllm:num_requests_waiting_by_reason";
  constexpr std::string_view kByReasonHelp = "Number of waiting requests by reason.";
  show(kByReason, kByReasonHelp, With(labels_, "reason", "capacity"),
       [](const EngineStats& s) -> double { return s.waiting; });
  show(kByReason, kByReasonHelp, With(labels_, "reason", "deferred"),
       [](const EngineStats& s) -> double { return s.waiting_for_remote; });
  show("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", labels_, Usage);
  registry_.AddAlias("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc");
  count("vllm:prefix_cache_queries_total", "Prefix cache queries, in tokens.",
        &EngineStats::prefix_queries, labels_);
  count("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens.", &EngineStats::prefix_hits,
        labels_);
  registry_.AddAlias("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total");
  registry_.AddAlias("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total");
  count("vllm:external_prefix_cache_hits_total", "Prompt tokens whose KV came from a peer.",
        &EngineStats::prompt_tokens_remote, labels_);
  count("vllm:num_preemptions_total", "Cumulative number of preemptions from the engine.",
        &EngineStats::preemptions, labels_);
  count("vllm:prompt_tokens_total", "Number of prefill tokens processed.",
        &EngineStats::prompt_tokens, labels_);
  count("vllm:generation_tokens_total", "Number of generation tokens processed.",
        &EngineStats::generation_tokens, labels_);
  count("vllm:prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache.",
        &EngineStats::prompt_tokens_local_cache, labels_);
  constexpr std::string_view kBySource = "vllm:prompt_tokens_by_source_total";
  constexpr std::string_view kBySourceHelp = "Number of prompt tokens by where their KV came from.";
  count(kBySource, kBySourceHelp, &EngineStats::prompt_tokens_local_compute,
        With(labels_, "source", "local_compute"));
  count(kBySource, kBySourceHelp, &EngineStats::prompt_tokens_local_cache,
        With(labels_, "source", "local_cache_hit"));
  count(kBySource, kBySourceHelp, &EngineStats::prompt_tokens_remote,
        With(labels_, "source", "external_kv_transfer"));
  show("llmd:kv_blocks_pinned", "KV blocks held for remote readers.", labels_,
       [](const EngineStats& s) -> double { return s.pinned_blocks; });
  show("llmd:kv_blocks_free", "KV blocks that nothing refers to.", labels_,
       [](const EngineStats& s) -> double { return s.free_blocks; });
  show("llmd:max_rows_in_step", "Most sequences that shared one step.", labels_,
       [](const EngineStats& s) -> double { return s.max_rows_in_step; });
  constexpr std::string_view kRefused = "llmd:kv_transfers_refused_total";
  constexpr std::string_view kRefusedHelp =
      "Remote KV not taken because it is not proved to be of the same prompt and model.";
  count(kRefused, kRefusedHelp, &EngineStats::kv_refused_several,
        With(labels_, "reason", "several"));
  count(kRefused, kRefusedHelp, &EngineStats::kv_refused_unproved,
        With(labels_, "reason", "unproved"));
  count(kRefused, kRefusedHelp, &EngineStats::kv_refused_prompt,
        With(labels_, "reason", "prompt_differs"));
  count(kRefused, kRefusedHelp, &EngineStats::kv_refused_model,
        With(labels_, "reason", "model_differs"));
  count("llmd:kv_load_failures_total", "Remote KV loads that fell back to local compute.",
        &EngineStats::kv_load_failures, labels_);
}

void ServingMetrics::AddCacheInfo(std::string_view cache_dtype) {
  const EngineOptions& o = engine_.options();
  const int blocks = engine_.Stats().total_blocks + 1;  // vLLM counts the null block
  registry_
      .AddGauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig",
                {{"block_size", std::to_string(o.block_size)},
                 {"cache_dtype", std::string(cache_dtype)},
                 {"enable_prefix_caching", o.enable_prefix_caching ? "True" : "False"},
                 {"gpu_memory_utilization", "None"},
                 {"kv_cache_size_tokens", std::to_string(int64_t{blocks} * o.block_size)},
                 {"num_cpu_blocks", "None"},
                 {"num_gpu_blocks", std::to_string(blocks)},
                 {"prefix_caching_hash_algo", o.hash_algorithm},
                 {"sliding_window", "None"},
                 {"engine", labels_[1].second}})
      .Set(1);
}

void ServingMetrics::FirstToken(Duration since_arrival) {
  ttft_->Observe(Secs(since_arrival));
}

void ServingMetrics::InterToken(Duration since_last) {
  itl_->Observe(Secs(since_last));
}

void ServingMetrics::RequestShape(int n, int max_tokens) {
  params_n_->Observe(n);
  params_max_tokens_->Observe(max_tokens);
}

void ServingMetrics::Finished(const FinishedRequest& request, const ChildTimes& times,
                              TimePoint now) {
  for (size_t i = 0; i < kReasons.size(); ++i) {
    if (kReasons[i] == request.reason) success_[i]->Add();
  }
  e2e_->Observe(Secs(now - times.arrival));
  prompt_tokens_->Observe(request.prompt_tokens);
  generation_tokens_->Observe(request.generation_tokens);
  max_generation_tokens_->Observe(request.max_tokens);
  prefill_computed_->Observe(std::max(0, request.prompt_tokens - request.cached_tokens));
  // An engine that gave no stamps (aborted before it ran) has no phases to observe.
  if (times.outputs == 0 || times.scheduled == TimePoint{}) return;
  queue_->Observe(Secs(times.scheduled - times.queued));
  prefill_->Observe(Secs(times.first_token - times.scheduled));
  inference_->Observe(Secs(times.last_token - times.scheduled));
  decode_->Observe(Secs(times.last_token - times.first_token));
  if (request.generation_tokens > 1) {
    tpot_->Observe(Secs(times.last_token - times.first_token) / (request.generation_tokens - 1));
  }
}

void ServingMetrics::Refresh() {
  const std::lock_guard lock(mutex_);
  const EngineStats stats = engine_.Stats();
  for (const Copied& c : copied_) {
    const double missing = static_cast<double>(stats.*c.field) - c.counter->value();
    if (missing > 0) c.counter->Add(missing);
  }
  for (const Shown& s : shown_) s.gauge->Set(s.read(stats));
}

std::string ServingMetrics::Expose() {
  Refresh();
  return registry_.Expose();
}

}  // namespace llmd::engine::serving
