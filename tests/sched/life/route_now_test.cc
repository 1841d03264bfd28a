// RouteNow: answers in the call, handles instead of strings, and what it allocates.
#include "llmd/sched/testing/allocation_counter.h"
#include "plugins/session.h"
#include "sched/life/life_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class RouteNowTest : public LifeFixture {
 protected:
  RequestInput Input() {
    RequestInput input;
    input.headers = &headers_;
    input.body = kBody;
    return input;
  }
  bool Now(Routing& routing, RequestInput input) {
    return director_->RouteNow(std::move(input), routing, [this](Routing r) {
      later_routing_ = std::move(r);
      ++later_;
    });
  }
  // As Now for one that may go at once; the director's own thread may be the one that sees it.
  bool NowOrSoon(Routing& routing) {
    if (Now(routing, Input())) return true;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (later_ == 0 && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (later_ != 1) return false;
    routing = std::move(later_routing_);
    later_ = 0;
    return true;
  }
  void SetUp() override { headers_ = {{":path", "/v1/completions"}}; }
  std::atomic<int> later_ = 0;
  Routing later_routing_;
  void TearDown() override {
    later_routing_ = {};
    LifeFixture::TearDown();
  }
};

TEST_F(RouteNowTest, AnswersInTheCallWhereItCan) {
  Begin();
  Routing routing;
  ASSERT_TRUE(Now(routing, Input()));
  EXPECT_TRUE(routing.ok);
  EXPECT_THAT(routing.handles, SizeIs(1));
  EXPECT_THAT(routing.endpoints, ElementsAre("127.0.0.1:8001"));
  director_->Cancel(routing.state);
  RequestInput bad = Input();
  bad.body = "{";
  ASSERT_TRUE(Now(routing, std::move(bad)));
  EXPECT_EQ(routing.denial.http_status, 400);
  EXPECT_EQ(later_, 0);
}

TEST_F(RouteNowTest, AQueuedOneIsAnsweredLaterAndOnce) {
  Begin();
  Routing first, second;
  ASSERT_TRUE(NowOrSoon(first));
  EXPECT_FALSE(Now(second, Input()));
  EXPECT_EQ(later_, 0);
  director_->Cancel(first.state);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (later_ == 0 && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(later_, 1);
  EXPECT_TRUE(later_routing_.ok);
  EXPECT_FALSE(second.ok);
}

TEST_F(RouteNowTest, OneWhoseProducersWaitIsAnsweredLater) {
  Begin("", {"{type: held-producer}"});
  Routing routing;
  EXPECT_FALSE(Now(routing, Input()));
  held_->Answer();
  EXPECT_EQ(later_, 1);
  EXPECT_TRUE(later_routing_.ok);
}

TEST_F(RouteNowTest, ARequestMayComeWithoutHeaders) {
  Begin();
  for (const bool handles_only : {true, false}) {
    Routing routing;
    RequestInput input = Input();
    input.headers = nullptr;
    input.handles_only = handles_only;
    ASSERT_TRUE(Now(routing, std::move(input)));
    EXPECT_TRUE(routing.ok);
    EXPECT_EQ(routing.endpoints.empty(), handles_only);
    director_->Cancel(routing.state);
  }
}

TEST_F(RouteNowTest, WhoIsExcludedIsNotChosen) {
  Open({}, "", "{type: concurrency-detector, parameters: {maxConcurrency: 50}}", {"a", "b", "c"});
  Routing routing;
  std::vector<EndpointId> failed;
  for (int i = 0; i < 3; ++i) {
    RequestInput input = Input();
    input.exclude = failed;
    ASSERT_TRUE(Now(routing, std::move(input)));
    ASSERT_TRUE(routing.ok);
    EXPECT_THAT(failed, Not(Contains(routing.handles[0])));
    failed.push_back(routing.handles[0]);
  }
  RequestInput input = Input();
  input.exclude = failed;
  ASSERT_TRUE(Now(routing, std::move(input)));
  EXPECT_EQ(routing.denial.http_status, 503);
}

TEST_F(RouteNowTest, WithHandlesOnlyNothingButTheParserAllocatesOnceItHasRun) {
  if (!testing::kCountsAllocations) GTEST_SKIP() << "allocations cannot be counted here";
  options_.manual = true;
  options_.attach_trace = false;
  options_.decision_ring = 0;
  level_ = LogLevel::kError;
  Open({"{type: queue-scorer}", "{type: prefix-cache-scorer}"}, "",
       "{type: concurrency-detector, parameters: {maxConcurrency: 50}}", {},
       "{pluginRef: queue-scorer}, {pluginRef: prefix-cache-scorer}");
  std::vector<EndpointInfo> members(8);
  for (size_t i = 0; i < members.size(); ++i) {
    members[i].name = "e" + std::to_string(i);
    members[i].address = "10.0.0.1";
    members[i].port = static_cast<uint16_t>(9000 + i);
  }
  ASSERT_TRUE(director_->SetEndpoints(members).ok());
  Routing routing;
  std::string none;
  const auto round = [&](bool body) {
    RequestInput input = Input();
    input.has_body = body;
    input.handles_only = true;
    ASSERT_TRUE(Now(routing, std::move(input)));
    ASSERT_TRUE(routing.ok);
    director_->OnResponseBody(routing.state, "{}", true, &none);
  };
  const auto allocated = [&](bool body) {
    for (int i = 0; i < 100; ++i) round(body);
    const uint64_t before = testing::AllocationsSoFar();
    for (int i = 0; i < 1000; ++i) round(body);
    return testing::AllocationsSoFar() - before;
  };
  EXPECT_EQ(allocated(false), 0u);
  EXPECT_EQ(allocated(true), 0u);
  EXPECT_THAT(routing.endpoints, IsEmpty());
}

// The scorer looks for the endpoint of the session by its name, whose 30 bytes no string holds in
// itself.
TEST_F(RouteNowTest, ASessionThatIsBoundAllocatesNothing) {
  if (!testing::kCountsAllocations) GTEST_SKIP() << "allocations cannot be counted here";
  options_.manual = true;
  options_.attach_trace = false;
  options_.decision_ring = 0;
  level_ = LogLevel::kError;
  const std::string name = "an-endpoint-of-thirty-bytes-00";
  for (const char* strategy : {"encoded_endpoint_header", "session_id"}) {
    Open({std::string("{type: session-affinity-scorer, parameters: {strategy: ") + strategy + "}}"},
         "", "{type: concurrency-detector, parameters: {maxConcurrency: 50}}", {},
         "{pluginRef: session-affinity-scorer}");
    std::vector<EndpointInfo> members(8);
    for (size_t i = 0; i < members.size(); ++i) {
      members[i].name = name + std::to_string(i);
      members[i].address = "10.0.0.1";
      members[i].port = static_cast<uint16_t>(9000 + i);
    }
    ASSERT_TRUE(director_->SetEndpoints(members).ok());
    headers_ = {{":path", "/v1/completions"},
                {"x-session-id", "a-session-id-of-some-forty-bytes-and-more"},
                {"x-session-token", Base64("default/" + name + "5")}};
    Routing routing;
    std::string none;
    EndpointId bound{};
    const auto round = [&] {
      RequestInput input = Input();
      input.has_body = false;
      input.handles_only = true;
      ASSERT_TRUE(Now(routing, std::move(input)));
      ASSERT_TRUE(routing.ok);
      if (bound == EndpointId{}) bound = routing.handles.at(0);
      EXPECT_EQ(routing.handles.at(0), bound);
      director_->OnResponseBody(routing.state, "{}", true, &none);
    };
    for (int i = 0; i < 100; ++i) round();
    const uint64_t before = testing::AllocationsSoFar();
    for (int i = 0; i < 1000; ++i) round();
    EXPECT_EQ(testing::AllocationsSoFar() - before, 0u) << strategy;
    routing = {};
    End();
    registry_ = std::make_unique<MetricsRegistry>();
  }
}

}  // namespace
}  // namespace llmd::sched
