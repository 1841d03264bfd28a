// Which series of an engine's page mean what (docs/reference/data.md): built-in engines, and
// those of a configuration.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "llmd/prom_text.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"
#include "plugins/data/metric_spec.h"

namespace llmd::sched {

struct EngineSeries {
  enum Field {
    kWaiting,
    kRunning,
    kKvUsage,
    kCacheInfo,  // block_size or page_size, num_gpu_blocks or num_pages as labels
    kBlockSize,
    kNumBlocks,
    kLora,
    kProcessStart,
    kCustom
  };
  Field field = kWaiting;
  MetricSpec spec;
  const AttributeId* attribute = nullptr;  // of kCustom
};

// Immutable.
class Engine {
 public:
  explicit Engine(const std::vector<EngineSeries>& series);
  const PromScanner& scanner() const { return scanner_; }
  // The series of a name of the scanner.
  const std::vector<EngineSeries>& OfName(size_t name) const { return by_name_[name]; }
  bool Has(EngineSeries::Field field) const { return (fields_ >> field & 1) != 0; }

 private:
  PromScanner scanner_;
  std::vector<std::vector<EngineSeries>> by_name_;
  unsigned fields_ = 0;  // a bit each
};

using EngineTable = std::map<std::string, std::vector<EngineSeries>>;
// vllm, sglang, trtllm-serve, triton-tensorrt-llm and triton.
EngineTable BuiltinEngines();

using AttributeOf = std::function<const AttributeId*(const std::string& key)>;
// The list `customMetrics` of `params`; `attribute` gives the place of a key. Errors go to
// `params`.
std::vector<EngineSeries> ReadCustomMetrics(Params& params, const AttributeOf& attribute);
// The list `engineConfigs` of `params`: an engine of a built-in name replaces that one.
void ReadEngineConfigs(Params& params, const AttributeOf& attribute, EngineTable& engines);

}  // namespace llmd::sched
