#include "engine/settings.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace llmd::services {
namespace {

StatusOr<ParsedSettings> Parse(std::vector<const char*> words) {
  words.insert(words.begin(), "llmd-engine");
  return ParseEngineSettings(static_cast<int>(words.size()), words.data());
}

TEST(ParseHumanInt, KnowsTheUnits) {
  const std::pair<const char*, int64_t> cases[] = {
      {"8192", 8192},      {"8k", 8000},          {"8K", 8192}, {"1.5K", 1536},
      {"256M", 256 << 20}, {"2g", 2'000'000'000}, {"auto", 0},  {"-1", 0}};
  for (const auto& [text, want] : cases) EXPECT_EQ(ParseHumanInt(text).value_or(-7), want) << text;
  for (const char* text : {"", "x", "8q", "1.5", "-3", "8kk"})
    EXPECT_FALSE(ParseHumanInt(text).ok()) << text;
}

TEST(EngineSettings, ServeAndDefaults) {
  const auto parsed = Parse({"serve", "/m.gguf"});
  ASSERT_TRUE(parsed.ok());
  const EngineSettings& s = parsed->settings;
  EXPECT_EQ(s.model, "/m.gguf");
  EXPECT_EQ(s.port, 8200);
  EXPECT_EQ(s.serving.model_names, (std::vector<std::string>{"/m.gguf"}));
  EXPECT_EQ(s.engine.block_size, 16);
  EXPECT_EQ(s.engine.kv_transfer.side_channel_port, 5600);
  EXPECT_TRUE(s.serving.log_requests);
}

TEST(EngineSettings, TakesTheFieldsSpellings) {
  const auto parsed = Parse({"serve", "/m.gguf", "--served_model_name", "a", "b", "--max-model-len",
                             "2K", "--port=0", "--no-enable-prefix-caching", "--max-num-seq", "7",
                             "--disable-log-requests", "--dtype", "bfloat16", "--enforce-eager",
                             "--gpu-memory-utilization", "0.9"});
  ASSERT_TRUE(parsed.ok());
  ASSERT_FALSE(parsed->outcome.exit);
  const EngineSettings& s = parsed->settings;
  EXPECT_EQ(s.serving.model_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(s.engine.max_model_len, 2048);
  EXPECT_EQ(s.port, 0);
  EXPECT_FALSE(s.engine.enable_prefix_caching);
  EXPECT_EQ(s.engine.max_num_seqs, 7);
  EXPECT_FALSE(s.serving.log_requests);
  EXPECT_EQ(s.weights.dtype, engine::DType::kBFloat16);
  EXPECT_GE(parsed->outcome.warnings.size(), 2u);
}

TEST(EngineSettings, ReadsTheSideChannelFromTheEnvironment) {
  setenv("VLLM_NIXL_SIDE_CHANNEL_PORT", "5711", 1);
  setenv("VLLM_NIXL_SIDE_CHANNEL_HOST", "10.0.0.9", 1);
  setenv("VLLM_API_KEY", "k", 1);
  const auto parsed = Parse({"serve", "/m.gguf"});
  setenv("VLLM_NIXL_SIDE_CHANNEL_PORT", "x", 1);
  const auto bad = Parse({"serve", "/m.gguf"});
  for (const char* name :
       {"VLLM_NIXL_SIDE_CHANNEL_PORT", "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_API_KEY"})
    unsetenv(name);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->settings.engine.kv_transfer.side_channel_port, 5711);
  EXPECT_EQ(parsed->settings.engine.kv_transfer.side_channel_host, "10.0.0.9");
  EXPECT_EQ(parsed->settings.api_keys, (std::vector<std::string>{"k"}));
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("VLLM_NIXL_SIDE_CHANNEL_PORT"), std::string::npos);
}

TEST(KvTransferConfig, TakesOurConnector) {
  engine::EngineOptions options;
  ASSERT_TRUE(ApplyKvTransferConfig(
                  R"({"kv_connector":"NixlConnector","kv_role":"kv_both","engine_id":"e",)"
                  R"("kv_connector_extra_config":{"transport":"tcp","kv_lease_duration":2.5}})",
                  &options)
                  .ok());
  EXPECT_EQ(options.kv_transfer.connector, "NixlConnector");
  EXPECT_EQ(options.kv_transfer.transport, "tcp");
  EXPECT_EQ(options.kv_transfer.lease, std::chrono::milliseconds(2500));
  EXPECT_EQ(options.engine_id, "e");
}

TEST(KvTransferConfig, RefusesWhatItDoesNotKnow) {
  for (const char* text :
       {"[]", "{}", R"({"kv_connector":"LMCacheConnectorV1"})",
        R"({"kv_connector":"NixlConnector","typo":1})",
        R"({"kv_connector":"NixlConnector","kv_connector_extra_config":{"lease":1}})"}) {
    engine::EngineOptions options;
    EXPECT_FALSE(ApplyKvTransferConfig(text, &options).ok()) << text;
  }
}

}  // namespace
}  // namespace llmd::services
