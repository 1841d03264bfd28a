#include "cli/bench/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "cli/bench/arrivals.h"
#include "cli/bench/text.h"
#include "llmd/json.h"
#include "support/paths.h"

namespace llmd::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Options Base() {
  Options o;
  o.targets = {{.peer = {"h", 80}}};
  o.model = "m\"1";
  o.load = Options::Load::kClosed;
  o.stages = {{.concurrency = 1, .requests = 10}};
  o.prompt = Lengths::Fixed(20);
  o.output = Lengths::Fixed(7);
  return o;
}

struct Built {
  std::string head;
  json::Value body;
  Conversation conversation;
};

Built Build(const Workload& workload, Conversation conversation, size_t target = 0) {
  std::string scratch = "what was there before";
  const std::string all(workload.Build(conversation, target, scratch));
  const size_t end = all.find("\r\n\r\n");
  EXPECT_NE(end, std::string::npos);
  Built out{.head = all.substr(0, end + 4)};
  const std::string body = all.substr(end + 4);
  EXPECT_THAT(out.head, HasSubstr("Content-Length: " + std::to_string(body.size()) + "\r\n"));
  auto parsed = json::Parse(body);
  EXPECT_TRUE(parsed.ok()) << body;
  out.body = parsed.ok() ? *parsed : json::Value();
  out.conversation = std::move(conversation);
  return out;
}

Workload Make(const Options& options, const Trace* trace = nullptr) {
  auto workload = Workload::Create(options, trace);
  EXPECT_TRUE(workload.ok()) << workload.status().ToString();
  return std::move(*workload);
}

std::string PromptOf(const json::Value& body) {
  return body["messages"].AsArray().back()["content"].AsString();
}

size_t Words(const std::string& text) {
  return text.empty() ? 0 : static_cast<size_t>(std::count(text.begin(), text.end(), ' ')) + 1;
}

TEST(Text, WordsDifferAndNeedNoEscape) {
  std::set<std::string_view> seen;
  for (size_t i = 0; i < kWords; ++i) {
    const std::string_view word = WordWithBlank(i);
    EXPECT_EQ(word[0], ' ');
    EXPECT_EQ(word.find_first_not_of("abcdefghijklmnopqrstuvwxyz", 1), std::string_view::npos);
    EXPECT_TRUE(seen.insert(word).second) << word;
  }
}

TEST(Workload, ABodyIsWhatTheOptionsSay) {
  const Options o = Base();
  const Built built = Build(Make(o), Make(o).Start(3, 0));
  EXPECT_THAT(built.head, StartsWith("POST /v1/chat/completions HTTP/1.1\r\nHost: h:80\r\n"));
  EXPECT_EQ(built.body["model"].AsString(), "m\"1");
  EXPECT_EQ(built.body["max_tokens"].AsInt(), 7);
  EXPECT_TRUE(built.body["stream"].AsBool());
  EXPECT_TRUE(built.body["stream_options"]["include_usage"].AsBool());
  EXPECT_TRUE(built.body["ignore_eos"].AsBool());
  EXPECT_EQ(Words(PromptOf(built.body)), 20u);
  EXPECT_EQ(built.conversation.prompt_tokens, 20u);
}

TEST(Workload, CompletionWithoutStreamOrExtras) {
  Options o = Base();
  o.api = Api::kCompletion;
  o.stream = false;
  o.ignore_eos = false;
  o.extra_body = R"({"top_k": 3, "temperature": 0.5})";
  const Built built = Build(Make(o), Make(o).Start(0, 0));
  EXPECT_THAT(built.head, StartsWith("POST /v1/completions "));
  EXPECT_EQ(Words(built.body["prompt"].AsString()), 20u);
  EXPECT_EQ(built.body.Find("stream"), nullptr);
  EXPECT_EQ(built.body.Find("ignore_eos"), nullptr);
  EXPECT_EQ(built.body["top_k"].AsInt(), 3);
  EXPECT_EQ(built.body["temperature"].AsDouble(), 0.5);
}

TEST(Workload, TheSameSeedMakesTheSameBytes) {
  Options o = Base();
  o.prompt = *ParseLengths("normal:50:20");
  o.output = *ParseLengths("uniform:1:99");
  const auto all = [](const Options& options) {
    const Workload workload = Make(options);
    std::string out, scratch;
    for (uint64_t i = 0; i < 50; ++i) {
      Conversation c = workload.Start(i, 0);
      out += workload.Build(c, 0, scratch);
    }
    return out;
  };
  const std::string first = all(o);
  EXPECT_EQ(first, all(o));
  o.seed = 1;
  EXPECT_NE(first, all(o));
}

// The bytes themselves, so that a change of the generator is seen: reports would no longer compare.
TEST(Workload, TheBytesOfASeedStay) {
  std::string text;
  AppendWords(text, {7, Random::kPrompt, 0}, 6, true);
  EXPECT_EQ(text, "hour were home this which young");
}

TEST(Workload, LengthsFollowTheirDistribution) {
  Options o = Base();
  o.prompt = *ParseLengths("normal:100:10:80:130");
  const Workload workload = Make(o);
  double sum = 0, squares = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    Conversation c = workload.Start(i, 0);
    std::string scratch;
    workload.Build(c, 0, scratch);
    ASSERT_GE(c.prompt_tokens, 80u);
    ASSERT_LE(c.prompt_tokens, 130u);
    sum += static_cast<double>(c.prompt_tokens);
    squares += static_cast<double>(c.prompt_tokens) * static_cast<double>(c.prompt_tokens);
  }
  const double mean = sum / 2000;
  EXPECT_NEAR(mean, 100, 1);
  EXPECT_NEAR(std::sqrt(squares / 2000 - mean * mean), 10, 1);
}

TEST(Workload, DistinctPromptsComeRoundAgain) {
  Options o = Base();
  o.distinct_prompts = 3;
  const Workload workload = Make(o);
  std::vector<std::string> prompts;
  for (uint64_t i = 0; i < 6; ++i) {
    prompts.push_back(PromptOf(Build(workload, workload.Start(i, 0)).body));
  }
  EXPECT_EQ(std::set<std::string>(prompts.begin(), prompts.end()).size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(prompts[i], prompts[i + 3]);
}

TEST(Workload, SharedPrefixesAreSharedByTheirGroup) {
  Options o = Base();
  o.shared = {.groups = 4, .system_tokens = 30};
  const Workload workload = Make(o);
  std::map<std::string, int> prefixes;
  std::set<std::string> prompts;
  for (uint64_t i = 0; i < 100; ++i) {
    const Built built = Build(workload, workload.Start(i, 0));
    const std::string prompt = PromptOf(built.body);
    EXPECT_EQ(Words(prompt), 50u);
    EXPECT_EQ(built.conversation.prompt_tokens, 50u);
    size_t end = 0;
    for (int w = 0; w < 30; ++w) end = prompt.find(' ', end + 1);
    ++prefixes[prompt.substr(0, end)];
    prompts.insert(prompt);
  }
  EXPECT_EQ(prefixes.size(), 4u);
  EXPECT_EQ(prompts.size(), 100u);
  for (const auto& [prefix, count] : prefixes) EXPECT_GT(count, 8) << prefix;
}

TEST(Workload, QuestionsOfAGroupComeRoundAgain) {
  Options o = Base();
  o.shared = {.groups = 2, .prompts_per_group = 3, .system_tokens = 5};
  const Workload workload = Make(o);
  std::set<std::string> prompts;
  for (uint64_t i = 0; i < 100; ++i) {
    prompts.insert(PromptOf(Build(workload, workload.Start(i, 0)).body));
  }
  EXPECT_EQ(prompts.size(), 6u);
}

TEST(Workload, ATurnCarriesTheAnswersBeforeIt) {
  Options o = Base();
  o.turns = 3;
  const Workload workload = Make(o);
  Conversation c = workload.Start(0, 0);
  ASSERT_TRUE(workload.HasNextTurn(c));
  const Built first = Build(workload, std::move(c));
  c = first.conversation;
  workload.NextTurn(c, R"(an \"answer\" \u00e4)", 9);
  const Built second = Build(workload, std::move(c));
  const json::Array& messages = second.body["messages"].AsArray();
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0]["content"].AsString(), PromptOf(first.body));
  EXPECT_EQ(messages[1]["role"].AsString(), "assistant");
  EXPECT_EQ(messages[1]["content"].AsString(), "an \"answer\" ä");
  EXPECT_NE(messages[2]["content"].AsString(), messages[0]["content"].AsString());
  EXPECT_EQ(second.conversation.prompt_tokens, 20u + 9 + 20);
  c = second.conversation;
  workload.NextTurn(c, "b", 1);
  EXPECT_FALSE(workload.HasNextTurn(c));
  EXPECT_EQ(Build(workload, std::move(c)).body["messages"].AsArray().size(), 5u);
}

TEST(Workload, CompletionTurnsGrowTheText) {
  Options o = Base();
  o.turns = 2;
  o.api = Api::kCompletion;
  const Workload workload = Make(o);
  const Built first = Build(workload, workload.Start(0, 0));
  Conversation c = first.conversation;
  workload.NextTurn(c, " so\\n", 2);
  const Built second = Build(workload, std::move(c));
  EXPECT_THAT(second.body["prompt"].AsString(),
              StartsWith(first.body["prompt"].AsString() + " so\n "));
}

TEST(Workload, TenantsAreDrawnByWeight) {
  Options o = Base();
  o.headers.Set("X-All", "1");
  o.tenants = {{.name = "a", .weight = 3, .headers = {{"X-Tenant", "a"}, {"X-All", "2"}}},
               {.name = "b", .model = "other"}};
  const Workload workload = Make(o);
  int of_a = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    const Built built = Build(workload, workload.Start(i, 0));
    const bool a = built.conversation.tenant == 0;
    of_a += a;
    EXPECT_EQ(built.body["model"].AsString(), a ? "m\"1" : "other");
    EXPECT_EQ(built.head.find("X-Tenant: a\r\n") != std::string::npos, a);
    EXPECT_NE(built.head.find(a ? "X-All: 2\r\n" : "X-All: 1\r\n"), std::string::npos);
  }
  EXPECT_NEAR(of_a, 750, 50);
}

TEST(Workload, RawRequestsAreSentAsTheyAre) {
  Options o = Base();
  o.api = Api::kRaw;
  o.method = "GET";
  o.path = "/x?y=1";
  o.targets.push_back({.peer = {"other", 81}, .target = "/base/"});
  std::string scratch;
  Conversation c;
  const Workload get = Make(o);
  EXPECT_EQ(get.Build(c, 0, scratch), "GET /x?y=1 HTTP/1.1\r\nHost: h:80\r\n\r\n");
  EXPECT_EQ(get.Build(c, 1, scratch), "GET /base/x?y=1 HTTP/1.1\r\nHost: other:81\r\n\r\n");
  o.method = "POST";
  o.body = "abc";
  const Workload post = Make(o);
  EXPECT_THAT(std::string(post.Build(c, 0, scratch)), HasSubstr("Content-Length: 3\r\n\r\nabc"));
}

TEST(Workload, RefusesExtraBodiesThatSetWhatFlagsSet) {
  Options o = Base();
  for (const char* bad : {"[]", "{", R"({"model":"x"})", R"({"stream":true})"}) {
    o.extra_body = bad;
    const auto workload = Workload::Create(o, nullptr);
    ASSERT_FALSE(workload.ok()) << bad;
    EXPECT_THAT(workload.status().message(), HasSubstr("--extra-body"));
  }
}

Trace Loaded(const std::string& name) {
  auto trace = Trace::Load(testing::SourcePath("tests/data/bench/" + name), "");
  EXPECT_TRUE(trace.ok()) << trace.status().ToString();
  return std::move(*trace);
}

TEST(Workload, EqualBlocksOfATraceAreEqualText) {
  const Trace trace = Loaded("mooncake.jsonl");
  Options o = Base();
  o.load = Options::Load::kTrace;
  o.trace_block_tokens = 8;
  const Workload workload = Make(o, &trace);
  std::vector<std::string> prompts;
  for (uint64_t i = 0; i < 4; ++i) {
    const Built built = Build(workload, workload.Start(i, 0));
    prompts.push_back(PromptOf(built.body));
    EXPECT_EQ(Words(prompts.back()), trace.entries()[i].input_tokens) << i;
    EXPECT_EQ(built.body["max_tokens"].AsUint(), trace.entries()[i].output_tokens);
  }
  // 1 = blocks 1 and 2 whole; 0 = the same and half of 3; 2 = block 1 and others.
  EXPECT_THAT(prompts[0], StartsWith(prompts[1] + " "));
  const auto first_words = [](const std::string& text, int count) {
    size_t end = 0;
    for (int i = 0; i < count; ++i) end = text.find(' ', end + 1);
    return text.substr(0, end);
  };
  EXPECT_EQ(first_words(prompts[2], 8), first_words(prompts[0], 8));
  EXPECT_NE(first_words(prompts[2], 9), first_words(prompts[0], 9));
}

std::vector<Arrival> All(const Options& o, const Trace* trace, uint64_t share = 0,
                         uint64_t of = 1) {
  Arrivals arrivals(o, trace, share, of);
  std::vector<Arrival> out;
  while (const auto a = arrivals.Next()) out.push_back(*a);
  return out;
}

TEST(Arrivals, ConstantStagesFollowEachOther) {
  Options o = Base();
  o.load = Options::Load::kConstant;
  o.stage_pause = std::chrono::milliseconds(500);
  o.stages = {{.rate = 10, .duration = std::chrono::seconds(1)}, {.rate = 2, .requests = 3}};
  const std::vector<Arrival> all = All(o, nullptr);
  ASSERT_EQ(all.size(), 13u);
  EXPECT_EQ(all[9].at_ns, 900'000'000);
  EXPECT_EQ(all[10].at_ns, 1'500'000'000);
  EXPECT_EQ(all[12].at_ns, 2'500'000'000);
  EXPECT_EQ(all[12].stage, 1u);
  EXPECT_EQ(all[12].index, 12u);
}

TEST(Arrivals, PoissonHasTheRateAndTheSpread) {
  Options o = Base();
  o.load = Options::Load::kPoisson;
  o.stages = {{.rate = 100, .duration = std::chrono::seconds(100)}};
  const std::vector<Arrival> all = All(o, nullptr);
  EXPECT_NEAR(static_cast<double>(all.size()), 10000, 400);
  double squares = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    const double gap = static_cast<double>(all[i].at_ns - all[i - 1].at_ns) * 1e-7;  // of the mean
    squares += (gap - 1) * (gap - 1);
  }
  // Gaps of a Poisson process deviate by their mean.
  EXPECT_NEAR(squares / static_cast<double>(all.size()), 1, 0.1);
}

TEST(Arrivals, SharesTogetherAreThePlan) {
  Options o = Base();
  o.load = Options::Load::kPoisson;
  o.stages = {{.rate = 100, .duration = std::chrono::seconds(2)}};
  const std::vector<Arrival> all = All(o, nullptr);
  std::map<uint64_t, int64_t> together;
  for (uint64_t share = 0; share < 3; ++share) {
    for (const Arrival& a : All(o, nullptr, share, 3)) together[a.index] = a.at_ns;
  }
  ASSERT_EQ(together.size(), all.size());
  for (const Arrival& a : all) EXPECT_EQ(together[a.index], a.at_ns);
}

TEST(Arrivals, TracesAreReplayedAtTheirSpeed) {
  const Trace trace = Loaded("mooncake.jsonl");
  Options o = Base();
  o.load = Options::Load::kTrace;
  o.stages = {{}};
  o.speed = 2;
  const std::vector<Arrival> all = All(o, &trace);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].at_ns, 0);
  EXPECT_EQ(all[1].at_ns, 0);
  EXPECT_EQ(all[2].at_ns, 150'000'000);
  EXPECT_EQ(all[3].at_ns, 300'250'000);
  o.stages = {{.duration = std::chrono::milliseconds(200)}};
  EXPECT_EQ(All(o, &trace).size(), 3u);
  o.stages = {{.requests = 2}};
  EXPECT_EQ(All(o, &trace).size(), 2u);
}

}  // namespace
}  // namespace llmd::bench
