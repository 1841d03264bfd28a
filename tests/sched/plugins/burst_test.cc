// Bursts: the placement by itself, then through a Director that holds requests back.
#include <future>

#include "plugins/producer/burst_plan.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

using Chain = std::vector<uint64_t>;

std::vector<BurstEndpoint> Pool(std::vector<double> running) {
  std::vector<BurstEndpoint> out;
  for (size_t i = 0; i < running.size(); ++i)
    out.push_back({std::string(1, static_cast<char>('a' + i)), running[i]});
  return out;
}

std::vector<int> Place(const std::vector<Chain>& chains, const std::vector<BurstEndpoint>& pool,
                       BurstRules rules = {}, std::vector<double> weights = {}) {
  std::vector<BurstItem> items;
  for (size_t i = 0; i < chains.size(); ++i)
    items.push_back({chains[i], weights.empty() ? 1.0 : weights[i]});
  PlaceBurst(items, pool, rules);
  std::vector<int> out;
  for (const BurstItem& item : items) out.push_back(item.assigned);
  return out;
}

TEST(PlaceBurst, EqualPromptsStayTogetherAndGroupsSpread) {
  const Chain x = {1, 2}, y = {5};
  EXPECT_THAT(Place({x, y, x, y, x}, Pool({0, 0})), ElementsAre(0, 1, 0, 1, 0));
  EXPECT_THAT(Place({x, x}, Pool({3, 1, 2})), ElementsAre(1, 1)) << "the idlest first";
}

TEST(PlaceBurst, AloneRequestsGoWhereOthersSay) {
  EXPECT_THAT(Place({{1}, {2}, {}}, Pool({0, 0})), ElementsAre(-1, -1, -1));
  EXPECT_THAT(Place({{1}, {1}}, {}), ElementsAre(-1, -1));
  EXPECT_THAT(Place({}, Pool({0})), ElementsAre());
}

TEST(PlaceBurst, AGroupSpillsOverItsLimit) {
  const Chain x = {1};
  std::vector<int> two = Place({x, x, x, x, x}, Pool({0, 0, 0}), {.max_per_replica = 2});
  EXPECT_THAT(two, ElementsAre(0, 0, 1, 1, 2));
  // More than all limits together: the rest one by one to the least loaded.
  EXPECT_THAT(Place({x, x, x, x, x}, Pool({0, 0}), {.max_per_replica = 1}),
              ElementsAre(0, 1, 0, 1, 0));
}

TEST(PlaceBurst, SharedBeginningsAttractUpToTheFairShare) {
  const Chain longer = {1, 2, 3, 4}, shorter = {1, 2, 9}, far = {7, 8, 9};
  // Without the rule single requests are not placed at all.
  EXPECT_THAT(Place({longer, shorter, far}, Pool({0, 0})), Each(-1));
  EXPECT_THAT(Place({shorter, longer, far, {1, 2, 7}}, Pool({0, 0}), {.min_colocate_blocks = 2}),
              ElementsAre(0, 0, -1, 1))
      << "three on two endpoints: a fair share is two";
  EXPECT_THAT(Place({shorter, longer}, Pool({0, 0}), {.min_colocate_blocks = 3}), Each(-1));
  const std::vector<int> four =
      Place({{1, 2, 3}, {1, 2, 4}, {1, 2, 5}, {1, 2, 6}}, Pool({0, 0}), {.min_colocate_blocks = 2});
  EXPECT_EQ(std::count(four.begin(), four.end(), 0), 2);
  EXPECT_EQ(std::count(four.begin(), four.end(), 1), 2);
}

TEST(PlaceBurst, GroupsAreTheAnchor) {
  const Chain single = {1, 2, 3, 4, 5, 6}, group = {1, 2, 3};
  const std::vector<int> out =
      Place({single, group, group}, Pool({0, 0}), {.min_colocate_blocks = 3});
  EXPECT_THAT(out, ElementsAre(1, 0, 0)) << "the group fills more than its fair share";
}

TEST(PlaceBurst, SharesMayBeCountedInTokens) {
  const Chain big = {1}, small = {2}, other = {3};
  EXPECT_THAT(
      Place({big, big, small, small, other, other}, Pool({0, 0}), {}, {100, 100, 10, 10, 10, 10}),
      ElementsAre(0, 0, 1, 1, 1, 1));
}

class Burst : public DirectorFixture {
 protected:
  // Routes without waiting; the answer comes through the future.
  struct Asked {
    std::string body;
    HeaderList headers{{":path", "/v1/completions"}};
    std::promise<Routing> done;
    std::shared_ptr<RequestState> state;
  };
  std::future<Routing> Ask(const std::string& prompt, std::vector<std::string> subset = {}) {
    asked_.push_back(std::make_unique<Asked>());
    Asked& a = *asked_.back();
    a.body = R"({"model":"m","prompt":")" + prompt + "\"}";
    RequestInput input;
    input.headers = &a.headers;
    input.body = a.body;
    input.state = &a.state;
    input.has_subset = !subset.empty();
    input.subset = std::move(subset);
    std::future<Routing> out = a.done.get_future();
    director_->Route(std::move(input), [&a](Routing r) { a.done.set_value(std::move(r)); });
    return out;
  }
  static bool Ready(const std::future<Routing>& f) {
    return f.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  static std::string Burster(const std::string& more) {
    return "{type: burst-prefix-cache-producer, parameters: {" + more + "}}";
  }
  static constexpr char kScorer[] =
      "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: "
      "burst-prefix-cache-producer}}";
  std::vector<std::unique_ptr<Asked>> asked_;
};

TEST_F(Burst, AFullBatchIsPlacedAtOnceAndTogether) {
  Start(Two(), {Burster("maxBatchSize: 4, windowDurationMs: 10000"), kScorer});
  const std::string x(400, 'x'), y(400, 'y');
  std::vector<std::future<Routing>> answers;
  for (const std::string& prompt : {x, y, x}) answers.push_back(Ask(prompt));
  for (const auto& a : answers) EXPECT_FALSE(Ready(a));
  answers.push_back(Ask(y));
  std::vector<std::string> to;
  for (auto& a : answers) {
    ASSERT_TRUE(Ready(a));
    to.push_back(a.get().endpoints.at(0));
  }
  EXPECT_EQ(to[0], to[2]);
  EXPECT_EQ(to[1], to[3]);
  EXPECT_NE(to[0], to[1]);
  EXPECT_THAT(metrics_.Expose(),
              ::testing::ContainsRegex("plugin_duration_seconds_count[^\n]*burst[^\n]* 4"));
}

TEST_F(Burst, RequestsAreHeldTogetherWithinTheirSubset) {
  Start(Two() + ", {name: c, address: 127.0.0.1, port: 8003}",
        {Burster("maxBatchSize: 10, windowDurationMs: 10000"), kScorer});
  const std::string x(400, 'x');
  std::vector<std::future<Routing>> narrow, wide;
  // Without a subset a group of these would go to the first endpoint.
  for (int i = 0; i < 8; ++i) narrow.push_back(Ask(x, {"127.0.0.1:8002", "127.0.0.1:8003"}));
  for (int i = 0; i < 2; ++i) wide.push_back(Ask(x));
  std::set<std::string> to;
  for (auto& a : narrow) to.insert(a.get().endpoints.at(0));
  EXPECT_THAT(to, ElementsAre("127.0.0.1:8002"));
  EXPECT_THAT(wide[0].get().endpoints, ElementsAre("127.0.0.1:8001"));
  EXPECT_THAT(wide[1].get().endpoints, ElementsAre("127.0.0.1:8001"));
}

TEST_F(Burst, TheWindowClosesByTheClock) {
  Start(Two(), {Burster("windowDurationMs: 100"), kScorer});
  std::future<Routing> a = Ask(std::string(400, 'x')), b = Ask(std::string(400, 'x'));
  EXPECT_EQ(a.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  clock_.Advance(std::chrono::milliseconds(100));
  ASSERT_EQ(a.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(a.get().endpoints, b.get().endpoints);
}

TEST_F(Burst, StoppingAnswersThoseWhoWait) {
  Start(Two(), {Burster("windowDurationMs: 10000"), kScorer});
  std::future<Routing> a = Ask("one");
  director_->Stop();
  ASSERT_TRUE(Ready(a));
  EXPECT_EQ(a.get().denial.http_status, 503);
  std::future<Routing> late = Ask("two");
  ASSERT_TRUE(Ready(late));
  EXPECT_EQ(late.get().denial.dropped_reason, "rejected-shutting-down");
}

TEST_F(Burst, AClientThatLeavesWhileItWaitsCostsNothing) {
  Start(Two(), {Burster("windowDurationMs: 10000, maxBatchSize: 2"), kScorer});
  std::future<Routing> a = Ask("one");
  director_->Cancel(asked_[0]->state);
  std::future<Routing> b = Ask("one");
  const Routing left = a.get(), stayed = b.get();
  EXPECT_TRUE(stayed.ok);
  director_->Cancel(left.state);
  director_->Cancel(stayed.state);
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("request_running[^\n]* 0.0"));
}

TEST(BurstScheduler, WhereNothingWaitsThereIsNoAffinity) {
  auto s =
      MakeScheduler(Config({"{type: burst-prefix-cache-producer}",
                            "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: "
                            "burst-prefix-cache-producer}}"}));
  EXPECT_THAT(Raw(Must(*s, Prompt(std::string(900, 'x')), {Ep("a"), Ep("b")})), ElementsAre(0, 0));
}

}  // namespace
}  // namespace llmd::sched
