#include "plugins/data/engine_series.h"

#include <algorithm>
#include <set>

namespace llmd::sched {
namespace {

std::vector<std::string> NamesOf(const std::vector<EngineSeries>& series) {
  std::vector<std::string> names;
  for (const EngineSeries& s : series) {
    if (std::find(names.begin(), names.end(), s.spec.name) == names.end())
      names.push_back(s.spec.name);
  }
  return names;
}

StatusOr<MetricSpec> ReadSpec(Params& params, std::string_view key) {
  StatusOr<MetricSpec> spec = ParseMetricSpec(params.String(key, ""));
  if (!spec.ok()) params.Fail(key, spec.status().message());
  return spec;
}

}  // namespace

Engine::Engine(const std::vector<EngineSeries>& series)
    : scanner_(NamesOf(series)), by_name_(scanner_.names().size()) {
  for (const EngineSeries& s : series) {
    const auto name = std::find(scanner_.names().begin(), scanner_.names().end(), s.spec.name);
    by_name_[static_cast<size_t>(name - scanner_.names().begin())].push_back(s);
    fields_ |= 1u << s.field;
  }
}

EngineTable BuiltinEngines() {
  using S = EngineSeries;
  const auto labelled = [](std::string name, std::string label, std::string value) {
    return MetricSpec{std::move(name), {{std::move(label), std::move(value)}}};
  };
  const std::string requests = "nv_trt_llm_request_metrics", type = "request_type";
  const std::string blocks = "nv_trt_llm_kv_cache_block_metrics", kind = "kv_cache_block_type";
  return {
      {"vllm",
       {{S::kWaiting, {"vllm:num_requests_waiting"}},
        {S::kRunning, {"vllm:num_requests_running"}},
        {S::kKvUsage, {"vllm:kv_cache_usage_perc"}},
        {S::kKvUsage, {"vllm:gpu_cache_usage_perc"}},
        {S::kCacheInfo, {"vllm:cache_config_info"}},
        {S::kLora, {"vllm:lora_requests_info"}}}},
      {"sglang",
       {{S::kWaiting, {"sglang:num_queue_reqs"}},
        {S::kRunning, {"sglang:num_running_reqs"}},
        {S::kKvUsage, {"sglang:token_usage"}},
        {S::kCacheInfo, {"sglang:cache_config_info"}}}},
      {"trtllm-serve",
       {{S::kWaiting, {"trtllm_num_requests_waiting"}},
        {S::kRunning, {"trtllm_num_requests_running"}},
        {S::kKvUsage, {"trtllm_kv_cache_utilization"}},
        {S::kBlockSize, {"trtllm_kv_cache_tokens_per_block"}},
        {S::kNumBlocks, {"trtllm_kv_cache_max_blocks"}}}},
      {"triton-tensorrt-llm",
       {{S::kWaiting, labelled(requests, type, "waiting")},
        {S::kRunning, labelled(requests, type, "scheduled")},
        {S::kKvUsage, labelled(blocks, kind, "fraction")},
        {S::kBlockSize, labelled(blocks, kind, "tokens_per")},
        {S::kNumBlocks, labelled(blocks, kind, "max")}}},
      {"triton",
       {{S::kWaiting, {"nv_inference_pending_request_count"}},
        {S::kRunning, {"nv_inference_exec_count"}}}},
  };
}

std::vector<EngineSeries> ReadCustomMetrics(Params& params, const AttributeOf& attribute) {
  std::vector<EngineSeries> out;
  std::set<std::string> seen;
  const config::Node list = params.node("customMetrics");
  if (!list.IsList() && !list.IsNull()) params.Fail("customMetrics", "expected a list");
  for (const config::Node& item : list.Items()) {
    Params one(item);
    const std::string key = one.String("attributeKey", "");
    if (key.empty()) one.Fail("attributeKey", "expected the name of an attribute");
    if (!seen.insert(key).second) one.Fail("attributeKey", "'" + key + "' appears twice");
    StatusOr<MetricSpec> spec = ReadSpec(one, "metricSpec");
    const AttributeId* place = attribute(key);
    if (place == nullptr) one.Fail("attributeKey", "'" + key + "' is filled from the gauges");
    if (Status status = one.Finish(); !status.ok()) {
      params.Fail(status);
    } else {
      out.push_back({EngineSeries::kCustom, std::move(*spec), place});
    }
  }
  return out;
}

void ReadEngineConfigs(Params& params, const AttributeOf& attribute, EngineTable& engines) {
  static const std::pair<const char*, EngineSeries::Field> kSpecs[] = {
      {"queuedRequestsSpec", EngineSeries::kWaiting},
      {"runningRequestsSpec", EngineSeries::kRunning},
      {"kvUsageSpec", EngineSeries::kKvUsage},
      {"loraSpec", EngineSeries::kLora},
      {"cacheInfoSpec", EngineSeries::kCacheInfo},
      {"cacheBlockSizeSpec", EngineSeries::kBlockSize},
      {"cacheNumBlocksSpec", EngineSeries::kNumBlocks}};
  std::set<std::string> seen;
  const config::Node list = params.node("engineConfigs");
  if (!list.IsList() && !list.IsNull()) params.Fail("engineConfigs", "expected a list");
  for (const config::Node& item : list.Items()) {
    Params one(item);
    const std::string name = one.String("name", "");
    if (name.empty()) one.Fail("name", "expected the name of an engine");
    if (!seen.insert(name).second) one.Fail("name", "'" + name + "' appears twice");
    std::vector<EngineSeries> series;
    for (const auto& [key, field] : kSpecs) {
      if (one.String(key, "").empty()) continue;
      if (StatusOr<MetricSpec> spec = ReadSpec(one, key); spec.ok())
        series.push_back({field, std::move(*spec)});
    }
    for (EngineSeries& custom : ReadCustomMetrics(one, attribute))
      series.push_back(std::move(custom));
    if (Status status = one.Collected(); status.ok() && series.empty())
      one.Fail(item.Error("expected at least one metric of the engine"));
    if (Status status = one.Finish(); !status.ok()) params.Fail(status);
    engines[name] = std::move(series);
  }
}

}  // namespace llmd::sched
