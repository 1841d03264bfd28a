#include "gateway/doors/door_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::doors {
namespace {

using ::testing::HasSubstr;

StatusOr<DoorOptions> Parse(std::vector<const char*> words) {
  DoorFlags flags;
  services::FlagSet set("test", "");
  AddDoorFlags(set, flags);
  words.insert(words.begin(), "test");
  const auto outcome = set.Parse(static_cast<int>(words.size()), words.data());
  if (outcome.exit) return InvalidArgument("exit");
  return ToDoorOptions(flags, {"pools.yaml", {}}, 7);
}

TEST(DoorFlags, HaveDefaults) {
  const auto options = Parse({});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->keys_file, "");
  EXPECT_EQ(options->paths.allow, DefaultAllowedPaths());
  EXPECT_TRUE(options->refuse_unknown_models);
  EXPECT_EQ(options->model_interval, std::chrono::seconds(10));
  EXPECT_EQ(options->each_client.connections, 16'384);
  EXPECT_EQ(options->all_clients.connections, 65'536);
  EXPECT_EQ(options->all_clients.body_bytes, int64_t{2} << 30);
  EXPECT_EQ(options->routes.pools_file, "pools.yaml");
  EXPECT_EQ(options->seed, 7u);
}

TEST(DoorFlags, ReachTheOptions) {
  const auto options =
      Parse({"--api-keys-file=k", "--engine-api-key-file=e", "--trusted-cidrs=10.0.0.0/8,::1",
             "--trusted-proxies=10.0.0.0/8", "--client-address-header=forwarded",
             "--cors-origin=https://a.example", "--cors-origin=https://b.example",
             "--cors-allow-header=x-a", "--cors-max-age=5s", "--allow-path=/a", "--deny-path=/b",
             "--no-refuse-unknown-models", "--model-refresh-interval=1s", "--max-connections=5",
             "--max-connections-per-client=4", "--max-header-bytes-in-flight=3",
             "--max-header-bytes-per-client=2", "--max-body-bytes-in-flight=1",
             "--max-body-bytes-per-client=9"});
  ASSERT_TRUE(options.ok()) << options.status().ToString();
  EXPECT_EQ(options->keys_file, "k");
  EXPECT_EQ(options->engine_key_file, "e");
  EXPECT_EQ(options->trusted_cidrs, std::vector<std::string>{"10.0.0.0/8,::1"});
  EXPECT_EQ(options->trusted_proxies, std::vector<std::string>{"10.0.0.0/8"});
  EXPECT_EQ(options->address_header, AddressHeader::kForwarded);
  EXPECT_EQ(options->cors.origins.size(), 2u);
  EXPECT_EQ(options->cors.headers, std::vector<std::string>{"x-a"});
  EXPECT_EQ(options->cors.max_age, std::chrono::seconds(5));
  EXPECT_EQ(options->paths.allow, std::vector<std::string>{"/a"});
  EXPECT_EQ(options->paths.deny, std::vector<std::string>{"/b"});
  EXPECT_FALSE(options->refuse_unknown_models);
  EXPECT_EQ(options->model_interval, std::chrono::seconds(1));
  EXPECT_EQ(options->all_clients.connections, 5);
  EXPECT_EQ(options->each_client.connections, 4);
  EXPECT_EQ(options->all_clients.header_bytes, 3);
  EXPECT_EQ(options->each_client.header_bytes, 2);
  EXPECT_EQ(options->all_clients.body_bytes, 1);
  EXPECT_EQ(options->each_client.body_bytes, 9);
}

TEST(DoorFlags, AreRefusedByName) {
  EXPECT_THAT(Parse({"--client-address-header=x-real-ip"}).status().message(),
              HasSubstr("--client-address-header 'x-real-ip'"));
  EXPECT_THAT(Parse({"--model-refresh-interval=1ms"}).status().message(),
              HasSubstr("--model-refresh-interval: expected 100ms to 1h"));
  EXPECT_THAT(Parse({"--cors-max-age=25h"}).status().message(), HasSubstr("--cors-max-age"));
  EXPECT_EQ(Parse({"--max-connections=0"}).status().message(), "exit");
}

}  // namespace
}  // namespace llmd::doors
