#include "llmd/engine/serving/metrics.h"

#include <gtest/gtest.h>

#include "engine/serving/fake_engine.h"

namespace llmd::engine::serving {
namespace {

bool Has(const std::string& page, std::string_view text) {
  return page.find(text) != std::string::npos;
}

constexpr std::string_view kBase = R"({engine="0",model_name="m"})";

TEST(ServingMetrics, EverySeriesExistsFromTheStart) {
  Bench bench;
  const std::string page = bench.metrics.Expose();
  for (const char* name :
       {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc", "vllm:prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_hits_total", "vllm:num_preemptions_total",
        "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count",
        "vllm:time_per_output_token_seconds_count", "vllm:e2e_request_latency_seconds_count",
        "vllm:request_queue_time_seconds_count", "vllm:request_prompt_tokens_count"}) {
    EXPECT_TRUE(Has(page, std::string(name) + std::string(kBase) + " 0.0\n")) << name;
  }
  EXPECT_TRUE(Has(page, R"(finished_reason="length",model_name="m"} 0.0)"));
  EXPECT_TRUE(Has(page, R"(block_size="16")"));
  EXPECT_TRUE(Has(page, R"(num_gpu_blocks="11")"));
}

TEST(ServingMetrics, CopiesTheEnginesTotalsOnce) {
  Bench bench;
  bench.engine.stats.prompt_tokens = 40;
  bench.engine.stats.running = 3;
  bench.engine.stats.waiting = 2;
  bench.engine.stats.waiting_for_remote = 1;
  bench.engine.stats.free_blocks = 5;
  bench.metrics.Refresh();
  const std::string page = bench.metrics.Expose();
  EXPECT_TRUE(Has(page, "vllm:prompt_tokens_total" + std::string(kBase) + " 40.0"));
  EXPECT_TRUE(Has(page, "vllm:num_requests_running" + std::string(kBase) + " 3.0"));
  EXPECT_TRUE(Has(page, "vllm:num_requests_waiting" + std::string(kBase) + " 3.0"));
  EXPECT_TRUE(Has(page, "vllm:kv_cache_usage_perc" + std::string(kBase) + " 0.5"));
  EXPECT_TRUE(Has(page, R"(model_name="m",reason="deferred"} 1.0)"));
}

TEST(ServingMetrics, ObservesARequestsPhases) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"p","stream":true})");
  ASSERT_TRUE(reply.ok());
  Output first;
  first.tokens = {'a'};
  first.queued = bench.clock.Now();
  bench.clock.Advance(std::chrono::seconds(1));
  first.scheduled = bench.clock.Now();
  bench.clock.Advance(std::chrono::seconds(2));
  bench.engine.Emit(0, std::move(first));
  for (int i = 0; i < 2; ++i) {
    bench.clock.Advance(std::chrono::seconds(4));
    bench.engine.EmitText(0, "b", i == 1 ? FinishReason::kLength : FinishReason::kNone);
  }
  Frames(**reply);
  const std::string page = bench.metrics.Expose();
  const auto sum = [&](std::string_view name) {
    return std::string(name) + "_sum" + std::string(kBase);
  };
  EXPECT_TRUE(Has(page, sum("vllm:time_to_first_token_seconds") + " 3.0"));
  EXPECT_TRUE(Has(page, sum("vllm:inter_token_latency_seconds") + " 8.0"));
  EXPECT_TRUE(Has(page, sum("vllm:request_queue_time_seconds") + " 1.0"));
  EXPECT_TRUE(Has(page, sum("vllm:request_prefill_time_seconds") + " 2.0"));
  EXPECT_TRUE(Has(page, sum("vllm:request_decode_time_seconds") + " 8.0"));
  EXPECT_TRUE(Has(page, sum("vllm:request_inference_time_seconds") + " 10.0"));
  EXPECT_TRUE(Has(page, sum("vllm:request_time_per_output_token_seconds") + " 4.0"));
  EXPECT_TRUE(Has(page, sum("vllm:e2e_request_latency_seconds") + " 11.0"));
  EXPECT_TRUE(Has(page, R"(finished_reason="length",model_name="m"} 1.0)"));
}

}  // namespace
}  // namespace llmd::engine::serving
