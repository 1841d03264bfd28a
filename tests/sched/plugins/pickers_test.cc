#include "sched/support.h"

namespace llmd::sched {
namespace {

const std::vector<EndpointState> kPool = {Ep("a", 0), Ep("b", 1), Ep("c", 2), Ep("d", 0)};

std::map<std::string, int> Wins(const std::string& picker, int runs) {
  auto s = MakeScheduler(Config({"{type: queue-scorer}", picker}));
  std::map<std::string, int> out;
  for (int i = 0; i < runs; ++i) ++out[Must(*s, Prompt("p"), kPool).picked.at(0).endpoint];
  return out;
}

TEST(MaxScorePicker, BreaksTiesAtRandomAmongTheBest) {
  const auto wins = Wins("{type: max-score-picker}", 400);
  EXPECT_EQ(wins.size(), 2u);
  EXPECT_GT(wins.at("default/a"), 130);
  EXPECT_GT(wins.at("default/d"), 130);
}

TEST(MaxScorePicker, RanksFallbacks) {
  auto s = MakeScheduler(Config(
      {"{type: queue-scorer}", "{type: max-score-picker, parameters: {maxNumOfEndpoints: 3}}"}));
  const Decision d = Must(*s, Prompt("p"), kPool);
  ASSERT_EQ(d.picked.size(), 3u);
  EXPECT_EQ(d.picked[0].total, 1);
  EXPECT_EQ(d.picked[1].total, 1);
  EXPECT_NE(d.picked[0].endpoint, d.picked[1].endpoint);
  EXPECT_EQ(d.picked[2].endpoint, "default/b");
  EXPECT_EQ(d.trace.profiles[0].tied, 2);
}

TEST(MaxScorePicker, NotPositiveMeansOne) {
  auto s = MakeScheduler(Config({"{type: max-score-picker, parameters: {maxNumOfEndpoints: -4}}"}));
  EXPECT_EQ(Must(*s, Prompt("p"), kPool).picked.size(), 1u);
}

TEST(RandomPicker, IsUniform) {
  const auto wins = Wins("{type: random-picker}", 800);
  EXPECT_EQ(wins.size(), 4u);
  for (const auto& [name, count] : wins) EXPECT_NEAR(count, 200, 60) << name;
}

TEST(WeightedRandomPicker, FollowsTheTotals) {
  const auto wins = Wins("{type: weighted-random-picker}", 1000);  // totals 1, 0.5, 0, 1
  EXPECT_NEAR(wins.at("default/a"), 400, 70);
  EXPECT_NEAR(wins.at("default/b"), 200, 60);
  EXPECT_EQ(wins.count("default/c"), 0u);
}

}  // namespace
}  // namespace llmd::sched
