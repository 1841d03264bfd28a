#include "gateway/doors/key_store.h"

#include <gtest/gtest.h>

#include "support.h"

namespace llmd::doors {
namespace {

KeyRecord Record(std::string id, std::string_view secret) {
  KeyRecord out;
  out.id = std::move(id);
  out.sha256 = HashSecret(secret);
  out.tenant = "acme";
  return out;
}

class KeyStoreTest : public ::testing::Test {
 protected:
  KeyCheck Check(const TestLines& lines, int64_t now_s = 1000) {
    return CheckKey(*store_.table().Load(), Span(lines), now_s);
  }
  MetricsRegistry registry_;
  DoorMetrics metrics_{registry_};
  RateLimiter limiter_;
  KeyStore store_{limiter_, metrics_};
};

TEST_F(KeyStoreTest, FindsAKeyByEitherHeader) {
  store_.Replace({Record("a", "secret-a"), Record("b", "secret-b")});
  EXPECT_EQ(Check({{"Authorization", "Bearer secret-a"}}).key->record.id, "a");
  EXPECT_EQ(Check({{"authorization", "bearer   secret-b "}}).key->record.id, "b");
  EXPECT_EQ(Check({{"X-Api-Key", "secret-b"}}).key->record.id, "b");
  // Anthropic's client may send both.
  EXPECT_EQ(Check({{"x-api-key", "secret-b"}, {"Authorization", "Bearer secret-a"}}).key->record.id,
            "a");
}

TEST_F(KeyStoreTest, SaysWhyThereIsNone) {
  store_.Replace({Record("a", "secret-a")});
  EXPECT_EQ(Check({}).failure, AuthFailure::kMissing);
  EXPECT_EQ(Check({{"Authorization", "Bearer secret-x"}}).failure, AuthFailure::kUnknown);
  for (const char* value :
       {"Basic secret-a", "Bearer", "Bearer ", "secret-a", "", "Bearersecret-a"})
    EXPECT_EQ(Check({{"Authorization", value}}).failure, AuthFailure::kMalformed) << value;
  EXPECT_EQ(
      Check({{"Authorization", "Bearer secret-a"}, {"Authorization", "Bearer secret-a"}}).failure,
      AuthFailure::kMalformed);
  const std::string endless(kMaxSecret + 1, 'x');
  EXPECT_EQ(Check({{"x-api-key", endless}}).failure, AuthFailure::kMalformed);
  EXPECT_FALSE(Check({{"x-api-key", endless}}).key);
}

TEST_F(KeyStoreTest, EndsWithItsTime) {
  KeyRecord expiring = Record("a", "secret-a"), disabled = Record("b", "secret-b");
  expiring.expires_unix_s = 1000;
  disabled.disabled = true;
  store_.Replace({expiring, disabled});
  EXPECT_TRUE(Check({{"x-api-key", "secret-a"}}, 999).key);
  EXPECT_EQ(Check({{"x-api-key", "secret-a"}}, 1000).failure, AuthFailure::kExpired);
  EXPECT_EQ(Check({{"x-api-key", "secret-b"}}).failure, AuthFailure::kDisabled);
}

TEST_F(KeyStoreTest, FindsAllOfMany) {
  std::vector<KeyRecord> keys;
  for (int i = 0; i < 5000; ++i)
    keys.push_back(Record("k" + std::to_string(i), "secret-" + std::to_string(i)));
  store_.Replace(keys);
  for (int i = 0; i < 5000; ++i) {
    const std::string secret = "secret-" + std::to_string(i);
    ASSERT_EQ(store_.table().Load()->Find(secret)->record.id, "k" + std::to_string(i));
  }
  EXPECT_EQ(store_.table().Load()->Find("secret-5000"), nullptr);
}

TEST_F(KeyStoreTest, KeepsBudgetsOverAReload) {
  KeyRecord key = Record("a", "secret-a");
  key.requests_per_minute = 2;
  store_.Replace({key, Record("b", "secret-b")});
  const TimePoint now{std::chrono::hours(1)};
  auto found = Check({{"x-api-key", "secret-a"}}).key;
  EXPECT_TRUE(found->budget->requests.Take(2, now).allowed);
  store_.Replace({key});
  const auto again = Check({{"x-api-key", "secret-a"}}).key;
  EXPECT_EQ(again->budget, found->budget);
  EXPECT_FALSE(again->budget->requests.Take(1, now).allowed);
  EXPECT_EQ(limiter_.size(), 1u);
}

TEST_F(KeyStoreTest, ABadFileChangesNothing) {
  const TempFolder folder;
  const std::string path = folder.Write("keys.yaml", "keys: [");
  store_.Replace({Record("a", "secret-a")});
  EXPECT_FALSE(store_.Load(path).ok());
  EXPECT_TRUE(Check({{"x-api-key", "secret-a"}}).key);
  EXPECT_FALSE(store_.Load(folder.Path("none")).ok());
}

TEST_F(KeyStoreTest, APriorityThatNobodyWouldSeeIsRefused) {
  const TempFolder folder;
  KeyRecord key = Record("a", "secret-a");
  key.priority = 1;
  const std::string path = folder.Write("keys.yaml", FormatKeyFile({key}));
  EXPECT_TRUE(store_.Load(path).ok());
  const Status status = store_.Load(path, false);
  EXPECT_NE(status.message().find("key 'a'"), std::string::npos) << status.ToString();
  key.priority.reset();
  key.objective = "chat";
  EXPECT_TRUE(store_.Load(folder.Write("keys.yaml", FormatKeyFile({key})), false).ok());
}

TEST_F(KeyStoreTest, BoundsTheNamesOfTenants) {
  for (size_t i = 0; i < DoorMetrics::kMaxTenants; ++i)
    metrics_.Of("t" + std::to_string(i)).requests->Add();
  metrics_.Of("one-more").requests->Add();
  metrics_.Of("t0").requests->Add();
  const std::string page = registry_.Expose();
  EXPECT_NE(page.find("llmd_gateway_tenant_requests_total{tenant=\"other\"} 1.0"),
            std::string::npos);
  EXPECT_NE(page.find("llmd_gateway_tenant_requests_total{tenant=\"t0\"} 2.0"), std::string::npos);
  EXPECT_EQ(page.find("one-more"), std::string::npos);
}

}  // namespace
}  // namespace llmd::doors
