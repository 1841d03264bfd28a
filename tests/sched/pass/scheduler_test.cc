#include "llmd/sched/scheduler.h"

#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>

#include "llmd/json.h"
#include "llmd/kv/block_hash.h"
#include "sched/support.h"
#include "support/paths.h"

namespace llmd::sched {
namespace {

std::vector<std::string> Prompts() {
  std::ifstream file(::llmd::testing::SourcePath("tests/data/prompts.json"));
  std::stringstream text;
  text << file.rdbuf();
  std::vector<std::string> out;
  const StatusOr<json::Value> value = json::Parse(text.str());
  EXPECT_TRUE(value.ok());
  if (value.ok()) {
    for (const json::Value& p : value->AsArray()) out.push_back(p["text"].AsString());
  }
  return out;
}

std::vector<uint32_t> PseudoTokens(const std::string& text) {
  std::vector<uint32_t> out((text.size() + 3) / 4, 0);
  for (size_t i = 0; i < text.size(); ++i)
    out[i / 4] |= uint32_t{static_cast<unsigned char>(text[i])} << (8 * (i % 4));
  return out;
}

TEST(PrefixRouting, SimilarPromptFollowsTheFirstOverSeedsAndOrders) {
  const std::vector<std::string> prompts = Prompts();
  ASSERT_GE(prompts.size(), 2u);
  // By hand: blocks of 64 pseudo-tokens that both prompts begin with, over the second one's blocks.
  std::vector<uint64_t> a, b;
  kv::ApproxHashes("m", "", PseudoTokens(prompts[0]), 64, 10'000, a);
  kv::ApproxHashes("m", "", PseudoTokens(prompts[1]), 64, 10'000, b);
  size_t same = 0;
  while (same < a.size() && same < b.size() && a[same] == b[same]) ++same;
  ASSERT_GT(same, 0u);
  ASSERT_LT(same, b.size());
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}), seed);
    std::vector<EndpointState> eps = {Ep("a"), Ep("b"), Ep("c"), Ep("d")};
    const std::string first = Must(*s, Prompt(prompts[0]), eps).picked[0].endpoint;
    std::mt19937_64 rng(seed);
    std::shuffle(eps.begin(), eps.end(), rng);
    const Decision second = Must(*s, Prompt(prompts[1]), eps);
    EXPECT_EQ(second.picked[0].endpoint, first) << seed;
    EXPECT_DOUBLE_EQ(second.picked[0].total,
                     static_cast<double>(same) / static_cast<double>(b.size()));
  }
}

TEST(PrefixRouting, WithoutTheScorerItSpreads) {
  const std::vector<std::string> prompts = Prompts();
  int together = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    auto s = MakeScheduler(Config({"{type: load-aware-scorer}"}), seed);
    const std::vector<EndpointState> eps = {Ep("a"), Ep("b"), Ep("c"), Ep("d")};
    together += Must(*s, Prompt(prompts[0]), eps).picked[0].endpoint ==
                Must(*s, Prompt(prompts[1]), eps).picked[0].endpoint;
  }
  EXPECT_GT(together, 0);
  EXPECT_LT(together, 30);
}

TEST(PrefixRouting, ModelAndSaltSeparate) {
  auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}));
  const std::string text(1000, 'x');
  Must(*s, Prompt(text), {Ep("a")});
  EXPECT_EQ(Raw(Must(*s, Prompt(text), {Ep("a")}))[0], 1);
  EXPECT_EQ(Raw(Must(*s, Prompt(text, "other"), {Ep("a")}))[0], 0);
  RequestSpec salted;
  salted.body = R"({"model":"m","prompt":")" + text + R"(","cache_salt":"s"})";
  EXPECT_EQ(Raw(Must(*s, salted, {Ep("a")}))[0], 0);
}

TEST(PrefixRouting, LengthWeightMixesIn) {
  auto s =
      MakeScheduler(Config({"{type: prefix-cache-scorer, parameters: {matchLengthWeight: 0.5, "
                            "matchLengthScaleTokens: 512}}"}));
  const std::string text(1024, 'x');  // 256 tokens, 4 blocks
  Must(*s, Prompt(text), {Ep("a")});
  EXPECT_DOUBLE_EQ(Raw(Must(*s, Prompt(text), {Ep("a")}))[0], 0.5 * 0.25 + 0.5);
}

TEST(Scheduler, WeightsAreSummedAndTheMaximumWins) {
  auto s = MakeScheduler(R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}]
schedulingProfiles:
- {name: p, plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: kv-cache-utilization-scorer, weight: 0.5}]}
)");
  const Decision d = Must(*s, Prompt("x"), {Ep("a", 0, 0, 0.8), Ep("b", 1, 0, 0.0)});
  EXPECT_THAT(d.trace.profiles[0].totals,
              ::testing::ElementsAre(::testing::DoubleEq(2.1), ::testing::DoubleEq(0.5)));
  EXPECT_EQ(d.picked[0].endpoint, "default/a");
}

TEST(Scheduler, RepeatsExactlyForASeed) {
  const auto run = [](uint64_t seed) {
    auto s = MakeScheduler("", seed);
    std::string all;
    for (int i = 0; i < 20; ++i) {
      Decision d = Must(*s, Prompt("prompt " + std::to_string(i)), {Ep("a"), Ep("b"), Ep("c")});
      d.trace.decision_ns = 0;
      all += ToJson(d.trace).Dump();
    }
    return all;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(Scheduler, LoadSpreadsUnderPressure) {
  auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}", "{type: load-aware-scorer}",
                                 "{type: active-request-scorer}"}));
  const std::vector<EndpointState> eps = {Ep("a"), Ep("b"), Ep("c")};
  std::map<std::string, int> seen;
  RequestSpec r = Prompt(std::string(2000, 'q'));
  r.keep_in_flight = true;
  for (int i = 0; i < 30; ++i) ++seen[Must(*s, r, eps).picked[0].endpoint];
  EXPECT_EQ(seen.size(), 3u);
}

TEST(Scheduler, RefusesBadBodiesAndTwins) {
  auto s = MakeScheduler("");
  RequestSpec bad;
  bad.body = "{\"model\": ";
  EXPECT_EQ(s->Schedule(bad, std::vector<EndpointState>{Ep("a")}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_FALSE(s->Schedule(Prompt("p"), std::vector<EndpointState>{Ep("a"), Ep("a")}).ok());
}

TEST(Scheduler, ReadsChatTokenArraysAndNumericStrings) {
  auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}));
  RequestSpec chat;
  chat.path = "/v1/chat/completions";
  chat.body =
      R"({"model":"m","max_tokens":"1","messages":[{"role":"user","content":[{"type":"text","text":")" +
      std::string(600, 'y') + R"("}]}]})";
  Must(*s, chat, {Ep("a")});
  EXPECT_EQ(Raw(Must(*s, chat, {Ep("a")}))[0], 1);
  RequestSpec ids;
  ids.body = R"({"model":"m","prompt":[[1,2,3],[4,5,6]]})";
  EXPECT_DOUBLE_EQ(Must(*s, ids, {Ep("a")}).picked[0].total, 0);
  EXPECT_DOUBLE_EQ(Must(*s, ids, {Ep("a")}).picked[0].total, 1);
}

}  // namespace
}  // namespace llmd::sched
