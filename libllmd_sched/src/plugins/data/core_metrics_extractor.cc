// The gauges of docs/reference/data.md by engine, old and new names, in one scan of the page.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "llmd/sched/extractor.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/engine_series.h"

namespace llmd::sched {
namespace {

constexpr const char* kEngineLabel = "llm-d.ai/engine-type";
constexpr const char* kOldEngineLabel = "inference.networking.k8s.io/engine-type";

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
// takes the highest, of a custom metric the newest counts and the first among equals.
class Reader {
 public:
  Reader(const Engine& engine, EndpointMetrics* out) : engine_(engine), out_(out) {}
  void operator()(const PromSample& sample) {
    if (!std::isfinite(sample.value)) return;
    for (const EngineSeries& s : engine_.OfName(sample.name)) {
      if (s.spec.Matches(sample.labels)) Apply(s, sample);
    }
  }
  bool found() const { return found_; }
  // Before the page: of what the engine has a series for, what the page does not say is not known
  // afterwards; a gauge is NaN then.
  void Clear() {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    if (engine_.Has(EngineSeries::kWaiting)) out_->waiting = kNan;
    if (engine_.Has(EngineSeries::kRunning)) out_->running = kNan;
    if (engine_.Has(EngineSeries::kKvUsage)) out_->kv_usage = kNan;
    const bool info = engine_.Has(EngineSeries::kCacheInfo);
    if (info || engine_.Has(EngineSeries::kBlockSize)) out_->block_size = 0;
    if (info || engine_.Has(EngineSeries::kNumBlocks)) out_->num_blocks = 0;
    if (!engine_.Has(EngineSeries::kLora)) return;
    out_->active_models.clear();
    out_->waiting_models.clear();
    out_->max_active_models = 0;
  }

 private:
  // What no queue and no share can be says nothing.
  void Sum(double* into, bool* seen, double v) {
    if (v < 0) return;
    *into = std::exchange(*seen, true) ? *into + v : v;
  }
  void Apply(const EngineSeries& s, const PromSample& sample) {
    found_ |= s.field != EngineSeries::kProcessStart;
    switch (s.field) {
      case EngineSeries::kProcessStart:
        out_->process_start = std::exchange(start_, true)
                                  ? std::max(out_->process_start, sample.value)
                                  : sample.value;
        return;
      case EngineSeries::kWaiting:
        return Sum(&out_->waiting, &waiting_, sample.value);
      case EngineSeries::kRunning:
        return Sum(&out_->running, &running_, sample.value);
      case EngineSeries::kKvUsage:
        if (sample.value < 0 || sample.value > 1) return;
        out_->kv_usage =
            std::exchange(usage_, true) ? std::max(out_->kv_usage, sample.value) : sample.value;
        return;
      case EngineSeries::kCacheInfo:
        return CacheInfo(sample);
      case EngineSeries::kBlockSize:
        out_->block_size = static_cast<int>(std::clamp(sample.value, 0.0, 1e9));
        return;
      case EngineSeries::kNumBlocks:
        out_->num_blocks = static_cast<int>(std::clamp(sample.value, 0.0, 1e9));
        return;
      case EngineSeries::kLora:
        return Lora(sample);
      case EngineSeries::kCustom:
        return Custom(s, sample);
    }
  }
  static int Label(const PromSample& sample, std::string_view name, std::string_view other) {
    const std::optional<std::string_view> value = FindLabel(sample.labels, name);
    return ToInt(value ? *value : FindLabel(sample.labels, other).value_or("0"));
  }
  // Prefixes may be matched in other units than memory is given out in: the cache is described in
  // those that prefixes match by, and stays as large.
  void CacheInfo(const PromSample& sample) {
    out_->block_size = Label(sample, "block_size", "page_size");
    out_->num_blocks = Label(sample, "num_gpu_blocks", "num_pages");
    const int unit = ToInt(FindLabel(sample.labels, "prefix_match_unit").value_or("0"));
    if (unit <= 0) return;
    const int64_t tokens = int64_t{out_->block_size} * out_->num_blocks;
    if (out_->block_size > 0)
      out_->num_blocks = static_cast<int>(std::clamp<int64_t>(tokens / unit, 0, INT32_MAX));
    out_->block_size = unit;
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
  void Custom(const EngineSeries& s, const PromSample& sample) {
    if (*s.attribute == kNoAttribute) return;
    const auto seen = std::find_if(customs_.begin(), customs_.end(),
                                   [&](const auto& c) { return c.first == *s.attribute; });
    if (seen != customs_.end() && sample.timestamp_ms <= seen->second) return;
    if (seen == customs_.end()) {
      customs_.emplace_back(*s.attribute, sample.timestamp_ms);
    } else {
      seen->second = sample.timestamp_ms;
    }
    out_->SetAttribute(*s.attribute, sample.value);
  }

  const Engine& engine_;
  EndpointMetrics* out_;
  bool waiting_ = false, running_ = false, usage_ = false, start_ = false, found_ = false;
  double newest_lora_ = -1;
  std::vector<std::pair<AttributeId, int64_t>> customs_;  // with the time stamp of what was taken
};

class CoreMetricsExtractor final : public Extractor {
 public:
  CoreMetricsExtractor(std::map<std::string, Engine> engines, std::string fallback,
                       std::string label)
      : engines_(std::move(engines)), fallback_(std::move(fallback)), label_(std::move(label)) {}

  Status Extract(std::string_view page, const EndpointInfo& endpoint,
                 EndpointMetrics* metrics) override {
    const std::string& type = EngineOf(endpoint);
    const auto engine = engines_.find(type);
    if (engine == engines_.end())
      return InvalidArgument("endpoint " + endpoint.FullName() + ": unknown engine type '" + type +
                             "'");
    EndpointMetrics read = *metrics;
    Reader reader(engine->second, &read);
    reader.Clear();
    engine->second.scanner().Scan(page, reader);
    if (reader.found()) {
      *metrics = std::move(read);
      return OkStatus();
    }
    return NotFound("the page of " + endpoint.FullName() +
                    " has none of the series of engine type '" + type + "'");
  }
  bool reads_gauges() const override { return true; }

 private:
  const std::string& EngineOf(const EndpointInfo& endpoint) const {
    auto label = endpoint.labels.find(label_);
    if (label == endpoint.labels.end() && label_ == kEngineLabel)
      label = endpoint.labels.find(kOldEngineLabel);
    return label == endpoint.labels.end() ? fallback_ : label->second;
  }
  const std::map<std::string, Engine> engines_;
  const std::string fallback_, label_;
};

constexpr std::pair<const char*, AttributeId> kOwnAttributes[] = {
    {"WaitingQueueSize", kWaitingAttribute},    {"RunningRequestsSize", kRunningAttribute},
    {"KVCacheUsagePercent", kKvUsageAttribute}, {"MaxActiveModels", kMaxActiveModelsAttribute},
    {"ActiveModels", kActiveModelsAttribute},   {"WaitingModels", kWaitingModelsAttribute},
    {"CacheBlockSize", kBlockSizeAttribute},    {"CacheNumBlocks", kNumBlocksAttribute}};

// The place of each custom attribute, asked for once; null for the names of our own.
class Attributes {
 public:
  explicit Attributes(PluginEnv& env) : env_(env) {
    for (const auto& [name, id] : kOwnAttributes) {
      env.ProduceAttribute(name, id);
      known_[name] = nullptr;
    }
  }
  const AttributeId* operator()(const std::string& key) {
    const auto [place, fresh] = known_.try_emplace(key, nullptr);
    if (fresh) place->second = env_.ProduceAttribute(key);
    return place->second;
  }

 private:
  PluginEnv& env_;
  std::map<std::string, const AttributeId*> known_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Attributes attributes(args.env);
  const AttributeOf attribute = [&](const std::string& key) { return attributes(key); };
  EngineTable table = BuiltinEngines();
  ReadEngineConfigs(params, attribute, table);
  const std::vector<EngineSeries> everywhere = ReadCustomMetrics(params, attribute);
  std::vector<std::string> names;
  std::map<std::string, Engine> engines;
  for (auto& [name, series] : table) {
    names.push_back(name);
    series.insert(series.end(), everywhere.begin(), everywhere.end());
    series.push_back({EngineSeries::kProcessStart, {"process_start_time_seconds"}});
    engines.emplace(name, Engine(series));
  }
  std::string fallback = params.Choice("defaultEngine", "vllm", names);
  std::string label = params.String("engineLabelKey", kEngineLabel);
  if (label.empty()) params.Fail("engineLabelKey", "expected the name of a label");
  return Done(params, std::make_unique<CoreMetricsExtractor>(
                          std::move(engines), std::move(fallback), std::move(label)));
}

}  // namespace

Status RegisterCoreMetricsExtractor(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "core-metrics-extractor",
       .kind = "extractor",
       .help = "Queue, running, KV use, cache layout and LoRA of vLLM, SGLang, TensorRT-LLM, "
               "Triton and engines described here; extra gauges as endpoint attributes. Fills "
               "WaitingQueueSize, RunningRequestsSize, KVCacheUsagePercent, MaxActiveModels, "
               "ActiveModels, WaitingModels, CacheBlockSize and CacheNumBlocks too.",
       .params = {{"defaultEngine", "vllm", "engine of endpoints without the engine label"},
                  {"engineLabelKey", "llm-d.ai/engine-type",
                   "label that names the engine; with the default the old "
                   "inference.networking.k8s.io/engine-type counts too"},
                  {"engineConfigs", "",
                   "{name, queuedRequestsSpec, runningRequestsSpec, kvUsageSpec, loraSpec, "
                   "cacheInfoSpec, cacheBlockSizeSpec, cacheNumBlocksSpec, customMetrics}; a spec "
                   "is name{label=value}; a built-in name replaces that engine"},
                  {"customMetrics", "",
                   "{attributeKey, metricSpec} for every engine: the newest sample by its time "
                   "stamp; a metric the page lacks keeps its value until that is stale"}},
       .make = Make});
}

}  // namespace llmd::sched
