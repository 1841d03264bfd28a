#include "llmd/sched/extractor.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

struct Case {
  const char* engine;
  const char* page;
};

std::unique_ptr<Plugin> MakeExtractor() {
  class Env final : public PluginEnv {
    DataKey Produce(std::string_view) override { return kNoKey; }
    DataKey Consume(std::string_view, std::string_view, bool) override { return kNoKey; }
    StatusOr<Plugin*> Dependency(std::string_view) override { return NotFound(""); }
    void Warn(std::string) override {}
  } env;
  const PluginRegistry registry = BuiltinPlugins();
  PluginArgs args{"x", "core-metrics-extractor", config::Node(), env};
  return std::move(*(*registry.Find("core-metrics-extractor"))->make(args));
}

StatusOr<EndpointMetrics> Read(const std::string& engine, const std::string& page) {
  const std::unique_ptr<Plugin> plugin = MakeExtractor();
  EndpointInfo info;
  if (!engine.empty()) info.labels["llm-d.ai/engine-type"] = engine;
  EndpointMetrics m;
  LLMD_RETURN_IF_ERROR(dynamic_cast<Extractor*>(plugin.get())->Extract(page, info, &m));
  return m;
}

TEST(CoreMetricsExtractor, ReadsEveryEnginesNames) {
  const Case cases[] = {
      {"vllm",
       "vllm:num_requests_waiting{model_name=\"m\"} 3\nvllm:num_requests_running{model_name=\"m\"} "
       "4\n"
       "vllm:kv_cache_usage_perc{model_name=\"m\"} "
       "0.5\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"1000\"} 1\n"},
      {"sglang",
       "sglang:num_queue_reqs 3\nsglang:num_running_reqs 4\nsglang:token_usage 0.5\n"
       "sglang:cache_config_info{page_size=\"16\",num_pages=\"1000\"} 1\n"},
      {"trtllm-serve",
       "trtllm_num_requests_waiting 3\ntrtllm_num_requests_running 4\ntrtllm_kv_cache_utilization "
       "0.5\n"
       "trtllm_kv_cache_tokens_per_block 16\ntrtllm_kv_cache_max_blocks 1000\n"},
      {"triton-tensorrt-llm",
       "nv_trt_llm_request_metrics{request_type=\"waiting\"} 3\n"
       "nv_trt_llm_request_metrics{request_type=\"scheduled\"} 4\n"
       "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n"
       "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 16\n"
       "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 1000\n"},
  };
  for (const Case& c : cases) {
    const StatusOr<EndpointMetrics> m = Read(c.engine, c.page);
    ASSERT_TRUE(m.ok()) << c.engine << m.status().ToString();
    EXPECT_EQ(m->waiting, 3) << c.engine;
    EXPECT_EQ(m->running, 4) << c.engine;
    EXPECT_EQ(m->kv_usage, 0.5) << c.engine;
    EXPECT_EQ(m->block_size, 16) << c.engine;
    EXPECT_EQ(m->num_blocks, 1000) << c.engine;
  }
}

TEST(CoreMetricsExtractor, TakesTheOldVllmNameAndTheNewestLoraSeries) {
  const StatusOr<EndpointMetrics> m = Read("",
                                           "vllm:gpu_cache_usage_perc 0.25\n"
                                           "vllm:lora_requests_info{max_lora=\"2\",running_lora_"
                                           "adapters=\"a, b\",waiting_lora_adapters=\"\"} 200\n"
                                           "vllm:lora_requests_info{max_lora=\"2\",running_lora_"
                                           "adapters=\"old\",waiting_lora_adapters=\"c\"} 100\n");
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(m->kv_usage, 0.25);
  EXPECT_THAT(m->active_models, ::testing::ElementsAre("a", "b"));
  EXPECT_TRUE(m->waiting_models.empty());
  EXPECT_EQ(m->max_active_models, 2);
}

TEST(CoreMetricsExtractor, SaysWhenThePageHasNothingOrTheEngineIsUnknown) {
  EXPECT_EQ(Read("", "go_goroutines 5\n").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Read("abacus", "x 1\n").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmd::sched
