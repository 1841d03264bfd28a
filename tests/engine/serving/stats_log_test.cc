#include "engine/stats_log.h"

#include <gtest/gtest.h>

namespace llmd::services {
namespace {

TEST(StatsLog, GivesRatesSinceTheLastLine) {
  StatsLog log;
  engine::EngineStats stats;
  stats.total_blocks = 100;
  stats.free_blocks = 75;
  stats.prompt_tokens = 100;
  stats.generation_tokens = 20;
  stats.running = 2;
  stats.waiting = 1;
  stats.prefix_queries = 8;
  stats.prefix_hits = 2;
  EXPECT_EQ(
      log.Line(stats, std::chrono::seconds(10)),
      "Engine 000: Avg prompt throughput: 10.0 tokens/s, Avg generation throughput: 2.0 tokens/s, "
      "Running: 2 reqs, Waiting: 1 reqs, GPU KV cache usage: 25.0%, Prefix cache hit rate: 25.0%");
  EXPECT_NE(log.Line(stats, std::chrono::seconds(10)).find("Avg prompt throughput: 0.0 tokens/s"),
            std::string::npos);
}

}  // namespace
}  // namespace llmd::services
