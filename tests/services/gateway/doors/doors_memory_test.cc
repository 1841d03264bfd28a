// What a request costs in allocations once everything has been seen: none.
#include <gtest/gtest.h>

#include "doors_fixture.h"
#include "llmd/json_scan.h"
#include "llmd/sched/testing/allocation_counter.h"

namespace llmd::doors {
namespace {

using sched::testing::AllocationsSoFar;
using DoorsMemoryTest = DoorsFixture;

TEST_F(DoorsMemoryTest, ARequestAllocatesNothing) {
  if (!sched::testing::kCountsAllocations) GTEST_SKIP() << "not counted here";
  AddKey("k1", "secret", [](KeyRecord& k) {
    k.models = {"al*", "b*"};
    k.requests_per_minute = k.tokens_per_minute = kMaxPerMinute;
    k.objective = "chat";
  });
  options_.engine_key_file = folder_.Write("engine", "engine-secret");
  options_.cors.origins = {"https://a.example"};
  options_.trusted_proxies = {"192.0.2.0/24"};
  options_.routes.endpoints_files = {
      {"", folder_.Write("e.yaml",
                         "routes: [{name: r, models: ['al*'], stickyBy: {header: x-user},"
                         " targets: [{model: base}, {model: bold}]}]")}};
  Open();
  Serve("a", R"({"data":[{"id":"base"},{"id":"bold"}]})");
  const TestLines lines = {{"Host", "h"},
                           {"Origin", "https://a.example"},
                           {"Authorization", "Bearer secret"},
                           {"X-Forwarded-For", "1.2.3.4, 5.6.7.8"},
                           {"x-user", "somebody with a rather long name of their own"},
                           {"x-llm-d-inference-objective", "top"}};
  const std::string_view body =
      R"({"messages":[{"role":"user","content":"hello"}],"model":"al\u0069as-with-a-name-too-long)"
      R"(-for-small-strings","max_tokens":10,"stream":true})";
  uint64_t before = 0;
  for (int i = 0; i < 10'100; ++i) {
    if (i == 100) before = AllocationsSoFar();
    const DoorRequest request{"POST", "/v1/chat/completions", Span(lines), Ip("192.0.2.1"),
                              clock_.Now()};
    lane_->Admit(request, body, {}, admission_);
    ASSERT_EQ(admission_.verdict, Verdict::kForward) << admission_.refusal.message;
    ASSERT_TRUE(admission_.rewritten());
    doors_->Settle(admission_, {true, 20}, clock_.Now());
  }
  EXPECT_EQ(AllocationsSoFar() - before, 0u);
}

TEST_F(DoorsMemoryTest, ARefusalAllocatesNothing) {
  if (!sched::testing::kCountsAllocations) GTEST_SKIP() << "not counted here";
  AddKey("k1", "secret", [](KeyRecord& k) { k.requests_per_minute = 1; });
  Open();
  std::string answer;
  uint64_t before = 0;
  for (int i = 0; i < 2'100; ++i) {
    if (i == 100) before = AllocationsSoFar();
    const TestLine line{"x-api-key", i % 2 == 0 ? "secret" : "wrong"};
    const DoorRequest request{"POST", "/v1/completions", std::span<const TestLine>(&line, 1),
                              Ip("192.0.2.1"), clock_.Now()};
    lane_->Admit(request, R"({"model":"m"})", {}, admission_);
    answer.clear();
    admission_.AppendBody(answer);
    ASSERT_TRUE(i == 0 || admission_.verdict == Verdict::kRefuse);
  }
  EXPECT_EQ(AllocationsSoFar() - before, 0u);
}

TEST_F(DoorsMemoryTest, AConnectionAllocatesNothing) {
  if (!sched::testing::kCountsAllocations) GTEST_SKIP() << "not counted here";
  Open();
  uint64_t before = 0;
  const IpAddress client = Ip("192.0.2.1");
  for (int i = 0; i < 1'100; ++i) {
    if (i == 100) before = AllocationsSoFar();
    ClientShare share = doors_->bounds().Open(client, admission_.refusal);
    ASSERT_TRUE(share.Take(Bound::kBodyBytes, 1000, admission_.refusal));
  }
  EXPECT_EQ(AllocationsSoFar() - before, 0u);
}

}  // namespace
}  // namespace llmd::doors
