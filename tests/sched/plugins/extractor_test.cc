#include "llmd/sched/extractor.h"

#include <algorithm>
#include <cmath>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "sched/support.h"
#include "support/engine_page.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// An extractor from a configuration, with the plugins that read what it fills.
class Reading {
 public:
  Reading(const std::string& extractor, const std::vector<std::string>& attributes = {},
          const std::string& producer = "x") {
    std::vector<std::string> plugins = {extractor};
    for (const std::string& a : attributes) {
      plugins.push_back("{name: r" + std::to_string(plugins.size()) +
                        ", type: endpoint-attribute-scorer, parameters: {attributeKey: " + a +
                        ", producer: " + producer +
                        ", algorithm: {type: linear_lower_is_better}}}");
    }
    StatusOr<std::shared_ptr<Graph>> graph = LoadGraph(Config(plugins), {});
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    graph_ = graph.ok() ? *graph : nullptr;
  }
  Status Read(const std::string& page) {
    for (const auto& plugin : graph_->plugins) {
      if (plugin->name() == "x")
        return dynamic_cast<Extractor&>(*plugin).Extract(page, info, &metrics);
    }
    return NotFound("no plugin x");
  }
  double Attribute(const std::string& name) const {
    Snapshot snapshot;
    auto set = std::make_shared<EndpointSet>();
    set->Add(std::make_shared<const EndpointInfo>(info), 0);
    snapshot.set = set;
    snapshot.Add(std::make_shared<const EndpointMetrics>(metrics));
    for (const EndpointAttribute& a : graph_->attributes) {
      if (a.name == name) return snapshot.Attribute(a.id, 0);
    }
    return -1;
  }
  EndpointInfo info;
  EndpointMetrics metrics;

 private:
  std::shared_ptr<Graph> graph_;
};

constexpr const char* kCore = "{name: x, type: core-metrics-extractor}";

StatusOr<EndpointMetrics> Read(const std::string& engine, const std::string& page) {
  Reading reading(kCore);
  if (!engine.empty()) reading.info.labels["llm-d.ai/engine-type"] = engine;
  LLMD_RETURN_IF_ERROR(reading.Read(page));
  return reading.metrics;
}

class EveryEngine : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryEngine, IsReadOffAWholePageUnderBothLabels) {
  for (const bool old_names : {false, true}) {
    const std::string page = test::EnginePageOf(
        GetParam(),
        {.waiting = 3, .running = 4, .kv_usage = 0.5, .num_blocks = 1000, .old_names = old_names});
    EXPECT_GE(std::count(page.begin(), page.end(), '\n'), 650);
    for (const char* label : {"llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"}) {
      Reading reading(kCore);
      reading.info.labels[label] = GetParam();
      ASSERT_TRUE(reading.Read(page).ok());
      EXPECT_EQ(reading.metrics.waiting, 3);
      EXPECT_EQ(reading.metrics.running, 4);
      const bool cache = GetParam() != "triton";  // Triton alone says nothing of a cache
      EXPECT_EQ(reading.metrics.kv_usage, cache ? 0.5 : 0);
      EXPECT_EQ(reading.metrics.block_size, cache ? 16 : 0);
      EXPECT_EQ(reading.metrics.num_blocks, cache ? 1000 : 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Extractor, EveryEngine,
                         ::testing::Values("vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm",
                                           "triton"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(CoreMetricsExtractor, TellsWhenTheProcessStartedWhereThePageSaysIt) {
  const std::string gauges = "vllm:num_requests_waiting 5\n";
  Reading reading(kCore);
  ASSERT_TRUE(reading.Read(gauges).ok());
  EXPECT_EQ(reading.metrics.process_start, 0);
  ASSERT_TRUE(reading.Read(gauges + "process_start_time_seconds 1.7500001e+09\n").ok());
  EXPECT_EQ(reading.metrics.process_start, 1'750'000'100);
  EXPECT_FALSE(Reading(kCore).Read("process_start_time_seconds 5\n").ok()) << "no engine's page";
}

// Hybrid models match prefixes in smaller units than they give memory out in.
TEST(CoreMetricsExtractor, TheCacheIsToldInTheUnitThatPrefixesMatchBy) {
  struct Case {
    const char* unit;
    int block_size, num_blocks;
  };
  for (const Case& c : {Case{"16", 16, 3300}, Case{"1056", 1056, 50}, Case{"None", 528, 100},
                        Case{"0", 528, 100}, Case{"-16", 528, 100}}) {
    const auto read =
        Read("vllm", "vllm:cache_config_info{block_size=\"528\",prefix_match_unit=\"" +
                         std::string(c.unit) + "\",num_gpu_blocks=\"100\"} 1\n");
    ASSERT_TRUE(read.ok()) << c.unit;
    EXPECT_EQ(read->block_size, c.block_size) << c.unit;
    EXPECT_EQ(read->num_blocks, c.num_blocks) << c.unit;
  }
}

TEST(CoreMetricsExtractor, TheNewLabelWinsOverTheOldAndAnotherKeyOverBoth) {
  const std::string page = "sglang:num_queue_reqs 3\nvllm:num_requests_waiting 5\n";
  Reading reading(kCore);
  reading.info.labels = {{"llm-d.ai/engine-type", "sglang"},
                         {"inference.networking.k8s.io/engine-type", "vllm"}};
  ASSERT_TRUE(reading.Read(page).ok());
  EXPECT_EQ(reading.metrics.waiting, 3);
  Reading own("{name: x, type: core-metrics-extractor, parameters: {engineLabelKey: engine}}");
  own.info.labels = {{"llm-d.ai/engine-type", "sglang"},
                     {"inference.networking.k8s.io/engine-type", "sglang"},
                     {"engine", "vllm"}};
  ASSERT_TRUE(own.Read(page).ok());
  EXPECT_EQ(own.metrics.waiting, 5);
}

TEST(CoreMetricsExtractor, WhatThePageLacksIsNotKnown) {
  Reading reading(kCore);
  const std::string whole =
      "vllm:num_requests_waiting 3\nvllm:num_requests_running 4\nvllm:kv_cache_usage_perc 0.5\n"
      "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"100\"} 1\n"
      "vllm:lora_requests_info{running_lora_adapters=\"a\",waiting_lora_adapters=\"b\","
      "max_lora=\"2\"} 1\n";
  for (const char* left : {"vllm:num_requests_waiting", "vllm:num_requests_running",
                           "vllm:kv_cache_usage_perc", "vllm:cache_config_info", "vllm:lora"}) {
    ASSERT_TRUE(reading.Read(whole).ok());
    std::string page = whole;
    const size_t line = page.find(left);
    page.erase(line, page.find('\n', line) + 1 - line);
    ASSERT_TRUE(reading.Read(page).ok());
    const EndpointMetrics& m = reading.metrics;
    const std::string_view name = left;
    EXPECT_EQ(std::isnan(m.waiting), name.ends_with("waiting")) << left;
    EXPECT_EQ(std::isnan(m.running), name.ends_with("running")) << left;
    EXPECT_EQ(std::isnan(m.kv_usage), name.ends_with("perc")) << left;
    EXPECT_EQ(m.block_size, name.ends_with("info") ? 0 : 16) << left;
    EXPECT_EQ(m.num_blocks, name.ends_with("info") ? 0 : 100) << left;
    EXPECT_EQ(m.active_models.empty(), name.ends_with("lora")) << left;
    EXPECT_EQ(m.waiting_models.empty(), name.ends_with("lora")) << left;
    EXPECT_EQ(m.max_active_models, name.ends_with("lora") ? 0 : 2) << left;
  }
}

TEST(CoreMetricsExtractor, APageWithoutAnyOfItsSeriesChangesNothing) {
  Reading reading(kCore);
  ASSERT_TRUE(reading.Read("vllm:num_requests_waiting 3\n").ok());
  EXPECT_FALSE(reading.Read("up 1\n").ok());
  EXPECT_EQ(reading.metrics.waiting, 3);
}

TEST(CoreMetricsExtractor, ReadsTheFirstLineBehindAByteOrderMark) {
  const StatusOr<EndpointMetrics> m = Read("", "\xEF\xBB\xBFvllm:num_requests_waiting 3\n");
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(m->waiting, 3);
}

TEST(CoreMetricsExtractor, TakesTheNewestLoraSeries) {
  const StatusOr<EndpointMetrics> m =
      Read("", test::EnginePageOf("vllm", {.lora_running = {"a", " b"}, .max_lora = 2}));
  ASSERT_TRUE(m.ok());
  EXPECT_THAT(m->active_models, ElementsAre("a", "b"));
  EXPECT_TRUE(m->waiting_models.empty());
  EXPECT_EQ(m->max_active_models, 2);
}

TEST(CoreMetricsExtractor, RanksAddUpAndTheFullestCacheCounts) {
  const StatusOr<EndpointMetrics> m = Read(
      "",
      "vllm:num_requests_waiting{engine=\"0\"} 3\nvllm:num_requests_waiting{engine=\"1\"} 4\n"
      "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n");
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(m->waiting, 7);
  EXPECT_EQ(m->kv_usage, 0.75);
}

TEST(CoreMetricsExtractor, WhatAPageLacksOrSpoilsIsUnknown) {
  Reading reading(kCore);
  ASSERT_TRUE(reading.Read(test::EnginePageOf("vllm", {.waiting = 3, .kv_usage = 0.5})).ok());
  ASSERT_TRUE(reading.Read("vllm:num_requests_waiting NaN\nvllm:num_requests_running 9\n").ok());
  EXPECT_TRUE(std::isnan(reading.metrics.waiting));
  EXPECT_EQ(reading.metrics.running, 9);
  EXPECT_TRUE(std::isnan(reading.metrics.kv_usage));
}

TEST(CoreMetricsExtractor, WhatNoGaugeCanBeIsUnknown) {
  Reading reading(kCore);
  ASSERT_TRUE(reading
                  .Read("vllm:num_requests_waiting -3\nvllm:num_requests_running 2\n"
                        "vllm:kv_cache_usage_perc 7\n")
                  .ok());
  EXPECT_TRUE(std::isnan(reading.metrics.waiting));
  EXPECT_EQ(reading.metrics.running, 2);
  EXPECT_TRUE(std::isnan(reading.metrics.kv_usage));
}

TEST(CoreMetricsExtractor, SaysWhenThePageHasNothingOrTheEngineIsUnknown) {
  EXPECT_EQ(Read("", "go_goroutines 5\n").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Read("abacus", "x 1\n").status().code(), StatusCode::kInvalidArgument);
}

TEST(CoreMetricsExtractor, CustomMetricsBecomeAttributes) {
  Reading reading(
      "{name: x, type: core-metrics-extractor, parameters: {customMetrics: ["
      "{attributeKey: depth, metricSpec: 'my_depth{tier=gold}'},"
      "{attributeKey: heat, metricSpec: heat}]}}",
      {"depth", "heat"});
  EXPECT_TRUE(std::isnan(reading.Attribute("depth")));
  ASSERT_TRUE(reading
                  .Read("my_depth{tier=\"tin\"} 1\nmy_depth{tier=\"gold\",rank=\"0\"} 2\n"
                        "my_depth{tier=\"gold\",rank=\"1\"} 3\n")
                  .ok());
  EXPECT_EQ(reading.Attribute("depth"), 2);  // the first where none has a time stamp
  EXPECT_TRUE(std::isnan(reading.Attribute("heat")));
  ASSERT_TRUE(reading
                  .Read("my_depth{tier=\"gold\"} 4 100\nmy_depth{tier=\"gold\"} 5 300\n"
                        "my_depth{tier=\"gold\"} 6 200\nheat 9\n")
                  .ok());
  EXPECT_EQ(reading.Attribute("depth"), 5);
  ASSERT_TRUE(reading.Read("heat NaN\nvllm:num_requests_waiting 1\n").ok());
  EXPECT_EQ(reading.Attribute("depth"), 5);
  EXPECT_EQ(reading.Attribute("heat"), 9);
}

TEST(CoreMetricsExtractor, EnginesOfTheConfigurationAddToTheBuiltInOnesOrReplaceThem) {
  const std::string config =
      "{name: x, type: core-metrics-extractor, parameters: {defaultEngine: mine, engineConfigs: ["
      "{name: mine, queuedRequestsSpec: 'q{s=w}', runningRequestsSpec: r, kvUsageSpec: u, "
      "loraSpec: "
      "l, cacheBlockSizeSpec: b, cacheNumBlocksSpec: n, customMetrics: [{attributeKey: extra, "
      "metricSpec: e}]},"
      "{name: vllm, queuedRequestsSpec: other_queue, loraSpec: '', cacheInfoSpec: info}]}}";
  Reading mine(config, {"extra"});
  ASSERT_TRUE(mine.Read("q{s=\"x\"} 9\nq{s=\"w\"} 1\nr 2\nu 0.3\nb 32\nn 400\ne 5\n"
                        "l{max_lora=\"3\",running_lora_adapters=\"z\"} 1\n")
                  .ok());
  EXPECT_EQ(mine.metrics.waiting, 1);
  EXPECT_EQ(mine.metrics.running, 2);
  EXPECT_EQ(mine.metrics.kv_usage, 0.3);
  EXPECT_EQ(mine.metrics.block_size, 32);
  EXPECT_EQ(mine.metrics.num_blocks, 400);
  EXPECT_THAT(mine.metrics.active_models, ElementsAre("z"));
  EXPECT_EQ(mine.Attribute("extra"), 5);
  Reading replaced(config);
  replaced.info.labels["llm-d.ai/engine-type"] = "vllm";
  ASSERT_TRUE(replaced
                  .Read("vllm:num_requests_waiting 7\nother_queue 8\n"
                        "info{num_pages=\"5\",page_size=\"1\"} 1\n")
                  .ok());
  EXPECT_EQ(replaced.metrics.waiting, 8);
  EXPECT_EQ(replaced.metrics.num_blocks, 5);
}

TEST(CoreMetricsExtractor, ReportsEveryWrongParameter) {
  const auto graph = LoadGraph(
      Config({"{type: core-metrics-extractor, parameters: {defaultEngine: abacus, engineLabelKey: "
              "'', customMetrics: [{attributeKey: a, metricSpec: 'x{'}, {attributeKey: a, "
              "metricSpec: y}, {metricSpec: z}, {attributeKey: WaitingQueueSize, metricSpec: z}],"
              "engineConfigs: [{name: e}, {queuedRequestsSpec: '9'}, {name: e, kvUsageSpec: k, "
              "colour: red}]}}"}),
      {});
  ASSERT_FALSE(graph.ok());
  EXPECT_THAT(graph.status().message(),
              AllOf(HasSubstr("got 'abacus'"), HasSubstr("name of a label"),
                    HasSubstr("the brace is not closed"), HasSubstr("'a' appears twice"),
                    HasSubstr("expected the name of an attribute"),
                    HasSubstr("'WaitingQueueSize' is filled from the gauges")));
  EXPECT_THAT(
      graph.status().message(),
      AllOf(HasSubstr("at least one metric"), HasSubstr("expected the name of an engine"),
            HasSubstr("no metric name"), HasSubstr("'e' appears twice"), HasSubstr("colour")));
}

TEST(CoreMetricsExtractor, ItsGaugesAreAttributesToo) {
  Reading reading(
      kCore, {"WaitingQueueSize", "RunningRequestsSize", "KVCacheUsagePercent", "MaxActiveModels",
              "ActiveModels", "WaitingModels", "CacheBlockSize", "CacheNumBlocks"});
  EXPECT_TRUE(std::isnan(reading.Attribute("CacheBlockSize")));
  ASSERT_TRUE(reading
                  .Read(test::EnginePageOf("vllm", {.waiting = 3,
                                                    .running = 4,
                                                    .kv_usage = 0.5,
                                                    .num_blocks = 1000,
                                                    .lora_running = {"a", "b"},
                                                    .lora_waiting = {"c"},
                                                    .max_lora = 4}))
                  .ok());
  EXPECT_EQ(reading.Attribute("WaitingQueueSize"), 3);
  EXPECT_EQ(reading.Attribute("RunningRequestsSize"), 4);
  EXPECT_EQ(reading.Attribute("KVCacheUsagePercent"), 0.5);
  EXPECT_EQ(reading.Attribute("MaxActiveModels"), 4);
  EXPECT_EQ(reading.Attribute("ActiveModels"), 2);
  EXPECT_EQ(reading.Attribute("WaitingModels"), 1);
  EXPECT_EQ(reading.Attribute("CacheBlockSize"), 16);
  EXPECT_EQ(reading.Attribute("CacheNumBlocks"), 1000);
}

TEST(ModelsDataExtractor, ReadsOpenAisList) {
  Reading reading("{name: x, type: models-data-extractor}");
  ASSERT_TRUE(reading
                  .Read(R"({"object":"list","data":[{"id":"llama","object":"model"},)"
                        R"({"id":"sql","parent":"llama"},{"object":"model"}]})")
                  .ok());
  EXPECT_THAT(*reading.metrics.served_models,
              ElementsAre(ServedModel{"llama", ""}, ServedModel{"sql", "llama"}));
  const auto before = reading.metrics.served_models;
  EXPECT_FALSE(reading.Read("{").ok());
  EXPECT_FALSE(reading.Read(R"({"error":"x"})").ok());
  EXPECT_EQ(reading.metrics.served_models, before);
  ASSERT_TRUE(reading.Read(R"({"data":[]})").ok());
  EXPECT_TRUE(reading.metrics.served_models->empty());
}

TEST(DcgmExtractor, TakesTheBusiestGpuOfTheEndpoint) {
  Reading reading("{name: x, type: dcgm-extractor}", {"GPUUtilization"});
  reading.info.name = "decode-0";
  EXPECT_EQ(reading.Read("DCGM_FI_DEV_FB_USED 5\n").code(), StatusCode::kNotFound);
  EXPECT_TRUE(std::isnan(reading.Attribute("GPUUtilization")));
  ASSERT_TRUE(reading
                  .Read("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 40\n"
                        "DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",pod=\"\"} 65\n"
                        "DCGM_FI_DEV_GPU_UTIL{gpu=\"2\",pod=\"decode-1\"} 99\n"
                        "DCGM_FI_DEV_GPU_UTIL{gpu=\"3\",pod=\"decode-0\"} 50\n")
                  .ok());
  EXPECT_EQ(reading.Attribute("GPUUtilization"), 0.65);
  EXPECT_EQ(reading.Read("DCGM_FI_DEV_GPU_UTIL{pod=\"decode-1\"} 99\n").code(),
            StatusCode::kNotFound);
  reading.info.name = "decode-1-rank-2";
  reading.info.rank = 2;
  ASSERT_TRUE(reading.Read("DCGM_FI_DEV_GPU_UTIL{pod=\"decode-1\"} 140\n").ok());
  EXPECT_EQ(reading.Attribute("GPUUtilization"), 1);
}

}  // namespace
}  // namespace llmd::sched
