// The regression alone: what it learns, what it withstands, what it never does.
#include "latency/ridge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace llmd::sched::latency {
namespace {

using ::testing::HasSubstr;

Terms Random(std::mt19937_64& rng) {
  std::uniform_real_distribution<> unit(0, 3);
  Terms x{};
  x[0] = 1;
  for (size_t i = 1; i < 6; ++i) x[i] = unit(rng);
  return x;
}
double Truth(const Terms& x) {
  return 20 + 40 * x[1] + 5 * x[2] + 15 * x[3];
}
// Relative error over fresh observations.
double ErrorOf(const Ridge& model, double (*truth)(const Terms&) = Truth) {
  std::mt19937_64 rng(99);
  double sum = 0;
  for (int i = 0; i < 200; ++i) {
    const Terms x = Random(rng);
    sum += std::abs(model.Predict(x) - truth(x)) / truth(x) / 200;
  }
  return sum;
}

TEST(LatencyRidge, LearnsASumOfNonNegativeTerms) {
  Ridge model(5);
  std::mt19937_64 rng(1);
  std::normal_distribution<> noise(1, 0.1);
  for (int i = 0; i < 1000; ++i) {
    const Terms x = Random(rng);
    model.Learn(x, Truth(x) * std::max(0.1, noise(rng)));
  }
  EXPECT_LT(ErrorOf(model), 0.03);
  EXPECT_NEAR(model.weights()[1], 40, 6);
  EXPECT_LT(model.weights()[5], 3);  // has no part in it
  EXPECT_NEAR(model.error(), 0.08, 0.03);
}

TEST(LatencyRidge, FollowsAChangeOfTheEngine) {
  Ridge model(5);
  std::mt19937_64 rng(2);
  for (int i = 0; i < 800; ++i) {
    const Terms x = Random(rng);
    model.Learn(x, Truth(x));
  }
  const auto slower = [](const Terms& x) { return 3 * Truth(x); };
  EXPECT_GT(ErrorOf(model, slower), 0.5);
  for (int i = 0; i < 1500; ++i) {
    const Terms x = Random(rng);
    model.Learn(x, slower(x));
  }
  EXPECT_LT(ErrorOf(model, slower), 0.08);
}

TEST(LatencyRidge, OneInFiftyOutliersDoesNotBendIt) {
  Ridge model(5);
  std::mt19937_64 rng(3);
  for (int i = 0; i < 1500; ++i) {
    const Terms x = Random(rng);
    model.Learn(x, i > 60 && i % 50 == 0 ? 1e6 : Truth(x));
  }
  EXPECT_LT(ErrorOf(model), 0.12);
}

TEST(LatencyRidge, IsReadyAfterItsLeastSamplesAndIgnoresImpossibleOnes) {
  Ridge model(5);
  Terms x{};
  x[0] = 1;
  for (double y : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                   std::numeric_limits<double>::infinity(), 1e12}) {
    model.Learn(x, y);
  }
  EXPECT_EQ(model.samples(), 0);
  for (int i = 0; i + 1 < Ridge::kMinSamples; ++i) model.Learn(x, 7);
  EXPECT_FALSE(model.ready());
  model.Learn(x, 7);
  EXPECT_TRUE(model.ready());
  EXPECT_NEAR(model.Predict(x), 7, 0.1);
}

TEST(LatencyRidge, IsNeverNegativeNorNanAndGrowsWithLoad) {
  Ridge model(5);
  std::mt19937_64 rng(4);
  std::uniform_real_distribution<> any(1e-3, 1e6);
  for (int i = 0; i < 3000; ++i) {
    Terms x = Random(rng);
    if (i % 7 == 0) x[1 + static_cast<size_t>(i) % 5] = 1e6;
    model.Learn(x, any(rng));
    const double now = model.Predict(x);
    ASSERT_TRUE(std::isfinite(now) && now >= 0) << i;
    Terms more = x;
    for (double& v : more) v *= 2;
    ASSERT_GE(model.Predict(more), now);
  }
}

TEST(LatencyRidge, SurvivesItsJson) {
  Ridge model(5), back(5);
  std::mt19937_64 rng(5);
  for (int i = 0; i < 300; ++i) {
    const Terms x = Random(rng);
    model.Learn(x, Truth(x));
  }
  ASSERT_TRUE(back.FromJson(*json::Parse(model.ToJson().Dump())).ok());
  EXPECT_EQ(back.weights(), model.weights());
  const Terms x = Random(rng);
  model.Learn(x, 50);
  back.Learn(x, 50);
  EXPECT_EQ(back.Predict(x), model.Predict(x));
}

TEST(LatencyRidge, RefusesJsonThatNoLearningGives) {
  Ridge model(5);
  for (const char* bad :
       {"null", "{}", R"({"samples":1,"error":1,"gram":[],"moment":[],"weights":[]})"})
    EXPECT_THAT(model.FromJson(*json::Parse(bad)).message(), HasSubstr("19 terms")) << bad;
  std::string text = model.ToJson().Dump();
  const std::string key = "\"error\":";
  text.replace(text.find(key), key.size(), key + "-");
  EXPECT_FALSE(model.FromJson(*json::Parse(text)).ok());
}

TEST(LatencyBasis, CutsWhatEnginesMayClaim) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (double lie : {kNan, -1e300, 1e300, std::numeric_limits<double>::infinity()}) {
    for (Target target : {Target::kTtft, Target::kTpot}) {
      for (double v : Expand(target, {lie, lie, lie, lie, lie, lie, lie, lie})) {
        EXPECT_GE(v, 0);
        EXPECT_LT(v, 1e9);
      }
    }
  }
}

TEST(LatencyBasis, ACachedPromptIsNoWorkOfItsOwn) {
  const Terms cold = Expand(Target::kTtft, {.input_token_length = 2000});
  const Terms half = Expand(Target::kTtft, {.input_token_length = 2000, .prefix_cache_score = 0.5});
  EXPECT_EQ(cold[1], 2);
  EXPECT_EQ(half[1], 1);
}

}  // namespace
}  // namespace llmd::sched::latency
