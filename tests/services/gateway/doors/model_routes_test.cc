#include "gateway/doors/model_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "gateway/doors/body_model.h"
#include "plugins/data/endpoints_file.h"
#include "support.h"

namespace llmd::doors {
namespace {

using ::testing::HasSubstr;

RouteTarget Target(std::string model, int64_t weight = 1) {
  RouteTarget out;
  out.model = std::move(model);
  out.weight = weight;
  out.seed = SeedOf(out);
  return out;
}

StatusOr<std::vector<ModelRoute>> Read(std::string_view yaml, std::vector<std::string> pools = {}) {
  return ReadRoutes(config::Parse(yaml).value(), pools, "");
}

ModelRoutes Routes(std::string_view yaml, sched::PoolsConfig pools = {}) {
  std::vector<std::string> names;
  for (const auto& pool : pools.pools) names.push_back(pool.name);
  auto routes = Read(yaml, names);
  EXPECT_TRUE(routes.ok()) << routes.status().ToString();
  auto out = ModelRoutes::Create(std::move(*routes), std::move(pools));
  EXPECT_TRUE(out.ok()) << out.status().ToString();
  return std::move(*out);
}

std::string Chosen(const ModelRoutes& routes, std::string_view model, const TestLines& lines = {},
                   uint64_t random = 0) {
  const RouteChoice choice = routes.Choose(model, {Span(lines), "key-1", "acme", "h"}, random);
  return std::string(choice.model) + (choice.pool.empty() ? "" : "@" + std::string(choice.pool));
}

constexpr int kNames = 100'000;

std::vector<std::string> Spread(const std::vector<RouteTarget>& targets) {
  std::vector<std::string> out;
  for (int i = 0; i < kNames; ++i)
    out.push_back(StickyTarget(targets, "user-" + std::to_string(i))->model);
  return out;
}

TEST(StickyTarget, GivesEachItsShare) {
  std::map<std::string, int> count;
  for (const std::string& model : Spread({Target("a", 1), Target("b", 2), Target("c", 7)}))
    ++count[model];
  // Five standard deviations of a binomial count.
  const auto near = [](int got, double share) {
    return std::abs(got - kNames * share) < 5 * std::sqrt(kNames * share * (1 - share));
  };
  EXPECT_TRUE(near(count["a"], 0.1)) << count["a"];
  EXPECT_TRUE(near(count["b"], 0.2)) << count["b"];
  EXPECT_TRUE(near(count["c"], 0.7)) << count["c"];
}

TEST(StickyTarget, AWeightMovesOnlyItsShare) {
  const auto before = Spread({Target("a", 9), Target("b", 1)});
  const auto after = Spread({Target("a", 8), Target("b", 2)});
  int moved = 0, back = 0;
  for (int i = 0; i < kNames; ++i) {
    const auto at = static_cast<size_t>(i);
    moved += before[at] == "a" && after[at] == "b" ? 1 : 0;
    back += before[at] == "b" && after[at] == "a" ? 1 : 0;
  }
  EXPECT_EQ(back, 0);
  // From 0.1 to 2/10 of the names: a tenth moves.
  EXPECT_NEAR(moved, kNames / 10, 500);
}

TEST(StickyTarget, ATargetThatLeavesMovesOnlyItsOwn) {
  const auto before = Spread({Target("a", 3), Target("b", 3), Target("c", 4)});
  const auto after = Spread({Target("b", 3), Target("a", 3)});  // in another order
  const auto drained = Spread({Target("a", 3), Target("b", 3), Target("c", 0)});
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i] != "c") ASSERT_EQ(before[i], after[i]);
    ASSERT_EQ(after[i], drained[i]);
  }
}

TEST(RandomTarget, GoesByWeight) {
  const std::vector<RouteTarget> targets = {Target("a", 1), Target("b", 0), Target("c", 3)};
  std::map<std::string, int> count;
  for (uint64_t i = 0; i < 400; ++i) ++count[RandomTarget(targets, i)->model];
  EXPECT_EQ(count, (std::map<std::string, int>{{"a", 100}, {"c", 300}}));
}

TEST(ModelRoutes, PutsAliasesPatternsAndCanariesInOrder) {
  const ModelRoutes routes = Routes(R"(routes:
- {name: any, models: ["gpt-*"], targets: [{model: big}]}
- {name: one, models: [gpt-4], targets: [{model: exact}],
   canary: [{header: x-canary, value: "yes", target: {model: next}}, {header: x-any, target: {model: old}}]}
)");
  EXPECT_EQ(Chosen(routes, "gpt-4"), "exact");
  EXPECT_EQ(Chosen(routes, "gpt-3"), "big");
  EXPECT_EQ(Chosen(routes, "llama"), "llama");
  EXPECT_EQ(Chosen(routes, "gpt-4", {{"X-Canary", "yes"}}), "next");
  EXPECT_EQ(Chosen(routes, "gpt-4", {{"X-Canary", "no"}}), "exact");
  EXPECT_EQ(Chosen(routes, "gpt-4", {{"x-any", ""}}), "old");
  // A route's target is not looked up again.
  EXPECT_EQ(Chosen(Routes("routes: [{name: r, models: [a], targets: [{model: b}]},"
                          "{name: s, models: [b], targets: [{model: c}]}]"),
                   "a"),
            "b");
}

TEST(ModelRoutes, StickToWhatTheyAreTold) {
  const std::string targets =
      "targets: [{model: v1, weight: 5}, {model: v2, weight: 5}], models: [m]";
  const ModelRoutes by_header =
      Routes("routes: [{name: r, stickyBy: {header: x-user}, " + targets + "}]");
  std::map<std::string, int> count;
  for (int i = 0; i < 200; ++i) {
    const std::string user = "u" + std::to_string(i);
    const std::string first = Chosen(by_header, "m", {{"x-user", user}}, 1);
    EXPECT_EQ(Chosen(by_header, "m", {{"X-User", user}}, 77), first);
    ++count[first];
  }
  EXPECT_GT(count["v1"], 60);
  EXPECT_GT(count["v2"], 60);
  // Without the header it is drawn.
  EXPECT_EQ(Chosen(by_header, "m", {}, 0), "v1");
  EXPECT_EQ(Chosen(by_header, "m", {}, 5), "v2");
  const ModelRoutes by_key = Routes("routes: [{name: r, stickyBy: key, " + targets + "}]");
  EXPECT_EQ(Chosen(by_key, "m", {}, 0), Chosen(by_key, "m", {}, 5));
}

TEST(ModelRoutes, ChoosePools) {
  sched::PoolsConfig pools;
  pools.pools = {{"chat", "", {"h2"}, {"llama-*"}}, {"code", "", {}, {"coder"}}};
  const ModelRoutes routes = Routes(
      "routes: [{name: r, models: [smart], targets: [{model: coder}]},"
      "{name: s, models: [only], targets: [{pool: chat}]}]",
      pools);
  EXPECT_EQ(Chosen(routes, "coder"), "coder@code");
  EXPECT_EQ(Chosen(routes, "llama-3"), "llama-3@chat");
  EXPECT_EQ(Chosen(routes, "smart"), "coder@code");  // by the model that is sent
  EXPECT_EQ(Chosen(routes, "only"), "only@chat");
  EXPECT_EQ(Chosen(routes, "other"), "other");
  EXPECT_EQ(routes.Choose("coder", {{}, "", "", "H2:80"}, 0).pool, "chat");
  pools.default_pool = "code";
  EXPECT_EQ(Chosen(Routes("routes: []", pools), "other"), "other@code");
}

TEST(ModelRoutes, RefuseByName) {
  const auto error = [](std::string_view yaml) {
    return Read(yaml, {"chat", "code"}).status().message();
  };
  EXPECT_THAT(error("routes:\n- {name: r, models: [m], targets: [{pool: caht}]}\n"),
              HasSubstr("line 2: routes[0].targets[0].pool: no pool is called 'caht'; did you mean "
                        "'chat'"));
  EXPECT_THAT(error("routes: [{name: r, models: [m]}]"), HasSubstr("expected a list of 1 to 64"));
  EXPECT_THAT(error("routes: [{name: r, models: [], targets: [{model: x}]}]"),
              HasSubstr("routes[0].models: expected a list of 1 to 1000 names"));
  EXPECT_THAT(error("routes: [{name: r, models: [m], targets: [{model: x, weight: 0}]}]"),
              HasSubstr("no target has a weight above 0"));
  EXPECT_THAT(error("routes: [{name: r, models: [m], targets: [{model: x, weight: -1}]}]"),
              HasSubstr("expected an integer from 0 to 1000000"));
  EXPECT_THAT(error("routes: [{name: r, models: [m], targets: [{model: x}, {model: x}]}]"),
              HasSubstr("model 'x' appears twice"));
  EXPECT_THAT(error("routes: [{name: r, models: [m], targets: [{weight: 1}]}]"),
              HasSubstr("a target has a model, a pool or both"));
  EXPECT_THAT(error("routes: [{name: r, models: [m], targets: [{model: x}], stickyBy: user}]"),
              HasSubstr("expected key, tenant or {header: NAME}"));
  EXPECT_THAT(error("routes: [{name: r, models: [m], targets: [{model: x}], sticky: key}]"),
              HasSubstr("stickyBy"));
  EXPECT_THAT(error("routes: [{name: 'a b', models: [m], targets: [{model: x}]}]"),
              HasSubstr("routes[0].name"));
  EXPECT_THAT(error("routes: {}"), HasSubstr("expected a list of routes"));
}

TEST(ModelRoutes, RefuseToShareAName) {
  const auto create = [](std::string_view yaml) {
    return ModelRoutes::Create(Read(yaml).value(), {}).status().message();
  };
  EXPECT_THAT(create("routes: [{name: r, models: [m], targets: [{model: x}]},"
                     "{name: s, models: [m], targets: [{model: y}]}]"),
              HasSubstr("routes 'r' and 's' both take the model 'm'"));
  EXPECT_THAT(create("routes: [{name: r, models: [m], targets: [{model: x}]},"
                     "{name: r, models: [n], targets: [{model: y}]}]"),
              HasSubstr("two routes are called 'r'"));
}

TEST(ModelRoutes, AreReadFromAllFiles) {
  const TempFolder folder;
  RouteFiles files;
  files.pools_file = folder.Write("pools.yaml", R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerPools
pools: [{name: chat, configFile: chat.yaml}, {name: code, configFile: code.yaml}]
routes: [{name: r, models: [a], targets: [{model: b, pool: code}]}]
)");
  files.endpoints_files = {{"chat", folder.Write("e.yaml", R"(endpoints: []
routes: [{name: s, models: [c], targets: [{model: d}]}]
)")}};
  const auto routes = LoadRoutes(files);
  ASSERT_TRUE(routes.ok()) << routes.status().ToString();
  EXPECT_EQ(Chosen(*routes, "a"), "b@code");
  EXPECT_EQ(Chosen(*routes, "c"), "d@chat");
  folder.Write("e.yaml", "endpoints: []\nroutes: [{name: s, models: [a], targets: [{model: d}]}]");
  EXPECT_THAT(LoadRoutes(files).status().message(), HasSubstr("both take the model 'a'"));
  folder.Write("e.yaml", R"(endpoints: []
routes: [{name: s, models: ["c*"], targets: [{model: d}]}]
rewrites: [{name: w, rules: [{matches: [{model: {value: c1}}], targets: [{modelRewrite: x}]}]}]
)");
  EXPECT_THAT(LoadRoutes(files).status().message(), HasSubstr("route 's' takes the model 'c1'"));
  EXPECT_THAT(LoadRoutes(files).status().message(), HasSubstr("e.yaml"));
}

TEST(ModelRoutes, MayStandInAnEndpointsFile) {
  const auto file = sched::ParsePoolFile(
      "endpoints: []\nroutes: [{name: s, models: [c], targets: [{model: d}]}]\n", "default");
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_FALSE(sched::ParsePoolFile("endpoints: []\nroute: []\n", "default").ok());
}

TEST(ModelRoutes, FindTheEndpointsFile) {
  EXPECT_EQ(EndpointsFilesOf("plugins:\n- {type: queue-scorer}\n"
                             "- {type: file-discovery, parameters: {path: /a/b.yaml}}\n"),
            std::vector<std::string>{"/a/b.yaml"});
  EXPECT_TRUE(EndpointsFilesOf("").empty());
  EXPECT_TRUE(EndpointsFilesOf("plugins: [").empty());
}

BodyModel Find(std::string_view body, std::string& scratch) {
  return FindBodyModel(body, json::ScanObject(body).value(), scratch);
}

TEST(BodyModel, TheLastCounts) {
  std::string scratch;
  EXPECT_EQ(Find(R"({"model":"a"})", scratch).name, "a");
  EXPECT_EQ(Find(R"({"x":1})", scratch).copies, 0u);
  const BodyModel twice = Find(R"({"model":"a","m\u006fdel":"b"})", scratch);
  EXPECT_EQ(twice.name, "b");
  EXPECT_EQ(twice.copies, 2u);
  EXPECT_FALSE(twice.agree);
  EXPECT_TRUE(Find(R"({"model":"\u0061","model":"a"})", scratch).agree);
  EXPECT_FALSE(Find(R"({"model":"a","model":7})", scratch).agree);
  EXPECT_FALSE(Find(R"({"model":7})", scratch).text);
  EXPECT_EQ(Find(R"({"tool":{"model":"x"},"model":"org\/m\u00fc"})", scratch).name,
            "org/m\xc3\xbc");
}

TEST(BodyModel, TheFirstIsTakenWithoutAScanOnlyWhereItIsSurelyTheOne) {
  std::string scratch;
  for (const std::string_view body : {R"({"model":"a","prompt":"say \"model\" \n"})",
                                      " {\n\t\"model\" : \"a b\" }", R"({"model":""})"}) {
    BodyModel quick;
    ASSERT_TRUE(FindFirstModel(body, quick)) << body;
    const BodyModel found = Find(body, scratch);
    EXPECT_EQ(quick.name, found.name);
    EXPECT_EQ(quick.value.In(body), found.value.In(body));
    EXPECT_TRUE(quick.text && quick.agree && quick.copies == 1);
  }
  for (const std::string_view body :
       {R"({"x":1,"model":"a"})", R"({"model":"a","model":"b"})",
        R"({"model":"a","tool":{"model":1}})", R"({"model":"a","m\u006fdel":"b"})",
        R"({"model":"\u0061"})", R"({"model":"a\/b"})", "{\"model\":\"a\n\"}",
        "{\"model\":\"\xff\"}", R"({"model":7})", R"({"model":"a)", R"([{"model":"a"}])",
        R"({"model")", "", "{"}) {
    BodyModel quick;
    EXPECT_FALSE(FindFirstModel(body, quick)) << body;
  }
}

TEST(BodyModel, OnlyItsBytesChange) {
  std::string scratch, quoted;
  const std::string_view body =
      "{ \"x\" : 1.0,\n \"model\" :\t\"a\\u0062\" , \"n\":9007199254740993, \"x\":2}";
  const SplicedBody parts = SpliceModel(body, Find(body, scratch), "b\"c", quoted);
  EXPECT_EQ(std::string(parts.before) + std::string(parts.model) + std::string(parts.after),
            "{ \"x\" : 1.0,\n \"model\" :\t\"b\\\"c\" , \"n\":9007199254740993, \"x\":2}");
  EXPECT_EQ(parts.before.data(), body.data());
  EXPECT_EQ(parts.size(), body.size() - 3);
}

TEST(BodyModel, ReadsNumbers) {
  const std::string_view body = R"({"max_tokens":7,"n":-1,"f":1.5,"s":"4","max_tokens":9})";
  const auto members = json::ScanObject(body).value();
  EXPECT_EQ(BodyNumber(body, members, "max_tokens", 3), 9);
  for (const char* key : {"n", "f", "s", "none"}) EXPECT_EQ(BodyNumber(body, members, key, 3), 3);
}

TEST(AnswerModel, PutsTheNameBackOverChunks) {
  const std::string_view answer = R"({"id":1,"model":"sent","choices":[{"model":"sent"}]})";
  for (size_t cut = 0; cut <= answer.size(); ++cut) {
    AnswerModel restore("sent", "as\"ked");
    const std::string out =
        restore.Feed(answer.substr(0, cut), false) + restore.Feed(answer.substr(cut), true);
    EXPECT_EQ(out, R"({"id":1,"model":"as\"ked","choices":[{"model":"sent"}]})");
  }
}

}  // namespace
}  // namespace llmd::doors
