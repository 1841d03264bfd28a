// The gauges of endpoint-picker.md §6.1 by engine, old and new names, in one scan of the page.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "llmd/prom_text.h"
#include "llmd/sched/extractor.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

enum class Field { kWaiting, kRunning, kKvUsage, kCacheInfo, kBlockSize, kBlockCount, kLora };
struct Series {
  std::string name;
  Field field;
  std::string label = {}, value = {};  // must match when given
};
struct Engine {
  PromScanner scanner;
  std::vector<Series> series;
  std::string block_label, count_label;  // of kCacheInfo
};

Engine MakeEngine(std::vector<Series> series, std::string block_label = "",
                  std::string count_label = "") {
  std::vector<std::string> names;
  for (const Series& s : series) {
    if (std::find(names.begin(), names.end(), s.name) == names.end()) names.push_back(s.name);
  }
  return {PromScanner(std::move(names)), std::move(series), std::move(block_label),
          std::move(count_label)};
}

std::map<std::string, Engine> Engines() {
  std::map<std::string, Engine> out;
  out.emplace("vllm", MakeEngine({{"vllm:num_requests_waiting", Field::kWaiting},
                                  {"vllm:num_requests_running", Field::kRunning},
                                  {"vllm:kv_cache_usage_perc", Field::kKvUsage},
                                  {"vllm:gpu_cache_usage_perc", Field::kKvUsage},
                                  {"vllm:cache_config_info", Field::kCacheInfo},
                                  {"vllm:lora_requests_info", Field::kLora}},
                                 "block_size", "num_gpu_blocks"));
  out.emplace("sglang", MakeEngine({{"sglang:num_queue_reqs", Field::kWaiting},
                                    {"sglang:num_running_reqs", Field::kRunning},
                                    {"sglang:token_usage", Field::kKvUsage},
                                    {"sglang:cache_config_info", Field::kCacheInfo}},
                                   "page_size", "num_pages"));
  out.emplace("trtllm-serve", MakeEngine({{"trtllm_num_requests_waiting", Field::kWaiting},
                                          {"trtllm_num_requests_running", Field::kRunning},
                                          {"trtllm_kv_cache_utilization", Field::kKvUsage},
                                          {"trtllm_kv_cache_tokens_per_block", Field::kBlockSize},
                                          {"trtllm_kv_cache_max_blocks", Field::kBlockCount}}));
  const std::string requests = "nv_trt_llm_request_metrics",
                    blocks = "nv_trt_llm_kv_cache_block_metrics";
  // One name stands for several fields here: the label tells which.
  out.emplace("triton-tensorrt-llm",
              MakeEngine({{requests, Field::kWaiting, "request_type", "waiting"},
                          {requests, Field::kRunning, "request_type", "scheduled"},
                          {blocks, Field::kKvUsage, "kv_cache_block_type", "fraction"},
                          {blocks, Field::kBlockSize, "kv_cache_block_type", "tokens_per"},
                          {blocks, Field::kBlockCount, "kv_cache_block_type", "max"}}));
  out.emplace("triton", MakeEngine({{"nv_inference_pending_request_count", Field::kWaiting},
                                    {"nv_inference_exec_count", Field::kRunning}}));
  return out;
}

int ToInt(std::string_view text) {
  int v = 0;
  std::from_chars(text.data(), text.data() + text.size(), v);
  return v;
}

std::vector<std::string> SplitNames(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view name = text.substr(0, comma);
    while (name.starts_with(' ')) name.remove_prefix(1);
    if (!name.empty()) out.push_back(UnescapeLabel(name));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return out;
}

// Applies one page's samples. Engines with several ranks repeat a series: queues add up, usage
// takes the highest.
class Reader {
 public:
  Reader(const Engine& engine, EndpointMetrics* out) : engine_(engine), out_(out) {}
  void operator()(const PromSample& sample) {
    const std::string& name = engine_.scanner.names()[sample.name];
    for (const Series& s : engine_.series) {
      if (s.name == name && (s.label.empty() || FindLabel(sample.labels, s.label) == s.value))
        Apply(s, sample);
    }
  }
  bool found() const { return found_; }

 private:
  void Sum(double* into, bool* seen, double v) {
    *into = std::exchange(*seen, true) ? *into + v : v;
  }
  void Apply(const Series& s, const PromSample& sample) {
    if (!std::isfinite(sample.value)) return;
    found_ = true;
    switch (s.field) {
      case Field::kWaiting:
        return Sum(&out_->waiting, &waiting_, sample.value);
      case Field::kRunning:
        return Sum(&out_->running, &running_, sample.value);
      case Field::kKvUsage:
        out_->kv_usage =
            std::exchange(usage_, true) ? std::max(out_->kv_usage, sample.value) : sample.value;
        return;
      case Field::kCacheInfo:
        out_->block_size = ToInt(FindLabel(sample.labels, engine_.block_label).value_or("0"));
        out_->num_blocks = ToInt(FindLabel(sample.labels, engine_.count_label).value_or("0"));
        return;
      case Field::kBlockSize:
        out_->block_size = static_cast<int>(sample.value);
        return;
      case Field::kBlockCount:
        out_->num_blocks = static_cast<int>(sample.value);
        return;
      case Field::kLora:
        return Lora(sample);
    }
  }
  // The value is a time stamp: the newest series wins.
  void Lora(const PromSample& sample) {
    if (sample.value < newest_lora_) return;
    newest_lora_ = sample.value;
    out_->active_models =
        SplitNames(FindLabel(sample.labels, "running_lora_adapters").value_or(""));
    out_->waiting_models =
        SplitNames(FindLabel(sample.labels, "waiting_lora_adapters").value_or(""));
    out_->max_active_models = ToInt(FindLabel(sample.labels, "max_lora").value_or("0"));
  }
  const Engine& engine_;
  EndpointMetrics* out_;
  bool waiting_ = false, running_ = false, usage_ = false, found_ = false;
  double newest_lora_ = -1;
};

class CoreMetricsExtractor final : public Extractor {
 public:
  explicit CoreMetricsExtractor(std::string fallback)
      : engines_(Engines()), fallback_(std::move(fallback)) {}
  Status Extract(std::string_view page, const EndpointInfo& endpoint,
                 EndpointMetrics* metrics) override {
    std::string type = fallback_;
    for (const char* label : {"inference.networking.k8s.io/engine-type", "llm-d.ai/engine-type"}) {
      if (const auto it = endpoint.labels.find(label); it != endpoint.labels.end())
        type = it->second;
    }
    const auto engine = engines_.find(type);
    if (engine == engines_.end())
      return InvalidArgument("endpoint " + endpoint.FullName() + ": unknown engine type '" + type +
                             "'");
    Reader reader(engine->second, metrics);
    engine->second.scanner.Scan(page, reader);
    if (reader.found()) return OkStatus();
    return NotFound("the page of " + endpoint.FullName() +
                    " has none of the series of engine type '" + type + "'");
  }

 private:
  const std::map<std::string, Engine> engines_;
  const std::string fallback_;
};

}  // namespace

Status RegisterCoreMetricsExtractor(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "core-metrics-extractor",
                 .kind = "extractor",
                 .help = "Queue, running, KV use, cache layout and LoRA of vLLM, SGLang, "
                         "TensorRT-LLM and Triton.",
                 .params = {{"defaultEngine", "vllm",
                             "engine of endpoints without the label llm-d.ai/engine-type"}},
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   std::string engine = params.Choice(
                       "defaultEngine", "vllm",
                       {"vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "triton"});
                   return Done(params, std::make_unique<CoreMetricsExtractor>(std::move(engine)));
                 }});
}

}  // namespace llmd::sched
