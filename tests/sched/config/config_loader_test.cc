#include "llmd/sched/config_loader.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kComplete[] = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: openai-parser}
- {type: passthrough-parser}
- {type: token-producer}
- type: approx-prefix-cache-producer
  parameters: {autoTune: true, maxPrefixTokensToMatch: 65536, lruCapacityPerServer: 40000}
- {type: inflight-load-producer}
- {type: decode-filter}
- {type: prefill-filter}
- {type: prefix-cache-scorer}
- {type: token-load-scorer, parameters: {queueThresholdTokens: 2000000}}
- {type: queue-scorer}
- name: top2
  type: max-score-picker
  parameters: {maxNumOfEndpoints: 2}
- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 512, promptTokens: 1024}}
- type: disagg-profile-handler
  parameters: {deciders: {prefill: prefix-based-pd-decider}}
- {type: round-robin-fairness-policy}
- {type: concurrency-detector, parameters: {maxConcurrency: 96}}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: token-load-scorer, weight: 2}, {pluginRef: top2}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: prefix-cache-scorer, weight: 3}, {pluginRef: queue-scorer, weight: 1}, {pluginRef: top2}]
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  maxRequests: "4k"
  defaultRequestTTL: 30s
  priorityBands:
  - {priority: 10, maxRequests: "500", fairnessPolicyRef: round-robin-fairness-policy}
  - {priority: -1, maxRequests: "100"}
requestHandler:
  parsers: [{pluginRef: openai-parser}, {pluginRef: passthrough-parser}]
)";

std::string ErrorOf(const std::string& yaml) {
  const auto graph = LoadGraph(yaml, {});
  return graph.ok() ? "" : graph.status().message();
}

json::Value Describe(const std::string& yaml) {
  const auto graph = LoadGraph(yaml, {});
  EXPECT_TRUE(graph.ok()) << graph.status().ToString();
  return graph.ok() ? DescribeGraph(**graph) : json::Value();
}

TEST(ConfigLoader, LoadsTheBuiltInDefault) {
  const json::Value d = Describe("");
  EXPECT_EQ(d["profileHandler"].AsString(), "single-profile-handler");
  EXPECT_EQ(
      d["profiles"].AsArray()[0].Dump(),
      R"({"name":"default","filters":[],"scorers":[{"name":"queue-scorer","weight":2.0},)"
      R"({"name":"kv-cache-utilization-scorer","weight":2.0},{"name":"prefix-cache-scorer","weight":3.0}],)"
      R"("picker":"max-score-picker"})");
  EXPECT_EQ(d["producers"].Dump(), R"(["token-producer","approx-prefix-cache-producer"])");
}

TEST(ConfigLoader, LoadsTheCompleteExampleWithItsFlowControl) {
  const json::Value d = Describe(kComplete);
  EXPECT_TRUE(d["flowControl"].AsBool());
  EXPECT_EQ(d["profiles"].AsArray().size(), 2u);
  EXPECT_EQ(d["producers"].Dump(),
            R"(["token-producer","approx-prefix-cache-producer","inflight-load-producer"])");
}

TEST(ConfigLoader, TakesTheOldGroupWithAWarning) {
  const auto graph = LoadGraph(
      "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins: "
      "[{type: queue-scorer}]",
      {});
  ASSERT_TRUE(graph.ok());
  EXPECT_THAT(GraphWarnings(**graph), Contains(HasSubstr("deprecated")));
}

TEST(ConfigLoader, WithoutProfilesPutsAllFiltersAndScorersIntoOne) {
  const json::Value d =
      Describe(Config({"{type: decode-filter}", "{type: queue-scorer}", "{type: random-picker}"}));
  EXPECT_EQ(
      d["profiles"].AsArray()[0].Dump(),
      R"({"name":"default","filters":["decode-filter"],"scorers":[{"name":"queue-scorer","weight":1.0}],"picker":"random-picker"})");
}

TEST(ConfigLoader, CompletesWhatIsMissing) {
  const json::Value d =
      Describe(Config({"{type: queue-scorer}", "{name: mine, type: random-picker}"}) +
               "schedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer}]}]");
  EXPECT_EQ(d["profiles"].AsArray()[0]["picker"].AsString(), "mine") << "the configured picker";
  EXPECT_EQ(d["profileHandler"].AsString(), "single-profile-handler");
  EXPECT_EQ(d["saturationDetector"].AsString(), "utilization-detector");
  EXPECT_EQ(d["sources"].Dump(), R"(["metrics-data-source"])");
  EXPECT_THAT(d["parsers"].Dump(),
              AllOf(HasSubstr("openai-parser"), HasSubstr("passthrough-parser\"]")));
  EXPECT_TRUE(d["discovery"].is_null());
  const json::Value bare =
      Describe(Config({"{type: queue-scorer}"}) + "dataLayer: {injectDefaults: false}\n");
  EXPECT_EQ(bare["sources"].Dump(), "[]");
  EXPECT_EQ(bare["profiles"].AsArray()[0]["picker"].AsString(), "max-score-picker");
}

TEST(ConfigLoader, KnowsThreePoliciesWithoutAnEntry) {
  EXPECT_EQ(ErrorOf(Config({"{type: queue-scorer}"}) +
                    "featureGates: [flowControl=true]\n"
                    "flowControl: {usageLimitPolicyPluginRef: static-usage-limit-policy, "
                    "defaultPriorityBand: {fairnessPolicyRef: global-strict-fairness-policy, "
                    "orderingPolicyRef: fcfs-ordering-policy}}"),
            "");
  EXPECT_THAT(
      ErrorOf(Config({"{type: queue-scorer}"}) +
              "flowControl: {defaultPriorityBand: {orderingPolicyRef: edf-ordering-policy}}"),
      HasSubstr("no plugin is called 'edf-ordering-policy'"));
}

TEST(ConfigLoader, CreatesTheProducerOfDataThatIsRead) {
  struct Case {
    const char *plugin, *producer;
  };
  for (const Case& c : {Case{"prefix-cache-scorer", "approx-prefix-cache-producer"},
                        Case{"active-request-scorer", "inflight-load-producer"},
                        Case{"approx-prefix-cache-producer", "token-producer"}}) {
    const auto graph = LoadGraph(Config({"{type: " + std::string(c.plugin) + "}"}), {});
    ASSERT_TRUE(graph.ok()) << graph.status().ToString();
    EXPECT_THAT(DescribeGraph(**graph)["producers"].Dump(), HasSubstr(c.producer));
    EXPECT_THAT(GraphWarnings(**graph),
                Contains(AllOf(HasSubstr(c.producer), HasSubstr("was added"))));
  }
}

TEST(ConfigLoader, SaysWhoElseProducesWhatADefaultProducerIsAddedFor) {
  const std::string precise = "{name: mine, type: precise-prefix-cache-producer}";
  const auto warnings = [&](const std::vector<std::string>& plugins) {
    const auto graph = LoadGraph(Config(plugins), {});
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    return graph.ok() ? GraphWarnings(**graph) : std::vector<std::string>();
  };
  const auto says = AllOf(HasSubstr("'prefix-cache-scorer' reads PrefixCacheMatchInfo"),
                          HasSubstr("'approx-prefix-cache-producer'"), HasSubstr("'mine'"),
                          HasSubstr("prefixMatchInfoProducerName"));
  EXPECT_THAT(warnings({precise, "{type: prefix-cache-scorer}"}), Contains(says));
  EXPECT_THAT(warnings({"{type: prefix-cache-scorer}", precise}), Contains(says));
  const auto mine = ::testing::Not(Contains(HasSubstr("'mine'")));
  EXPECT_THAT(
      warnings({precise, "{type: approx-prefix-cache-producer}", "{type: prefix-cache-scorer}"}),
      mine);
  EXPECT_THAT(warnings({precise,
                        "{type: prefix-cache-scorer, parameters: "
                        "{prefixMatchInfoProducerName: mine}}"}),
              mine);
  EXPECT_THAT(warnings({precise, "{type: inflight-load-producer}"}),
              Contains(AllOf(HasSubstr("goes without PrefixCacheMatchInfo"), HasSubstr("'mine'"))));
}

TEST(ConfigLoader, TakesTheOldTopLevelFormsWithAWarning) {
  const auto graph = LoadGraph(
      Config({"{type: queue-scorer}", "{type: concurrency-detector}", "{type: openai-parser}"}) +
          "saturationDetector: {pluginRef: concurrency-detector}\n"
          "parser: {pluginRef: openai-parser}\n",
      {});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  EXPECT_EQ(DescribeGraph(**graph)["saturationDetector"].AsString(), "concurrency-detector");
  EXPECT_EQ(DescribeGraph(**graph)["parsers"].Dump(), R"(["openai-parser"])");
  EXPECT_THAT(GraphWarnings(**graph), AllOf(Contains(HasSubstr("saturationDetector is deprecated")),
                                            Contains(HasSubstr("parser is deprecated"))));
}

TEST(ConfigLoader, GatesAreOnOrOff) {
  const auto flow = [](const std::string& gates) {
    return Describe(Config({"{type: queue-scorer}"}) + "featureGates: " + gates)["flowControl"];
  };
  EXPECT_TRUE(flow("[flowControl]").AsBool());
  EXPECT_TRUE(flow("[flowControl=true]").AsBool());
  EXPECT_FALSE(flow("[flowControl=false]").AsBool());
  EXPECT_FALSE(flow("[haPopulateNonLeaderDatastore=false]").AsBool());
}

TEST(ConfigLoader, OptionalInputsOrderProducersToo) {
  // Configured in the opposite order of what they need.
  const json::Value d =
      Describe(Config({"{type: inflight-load-producer}", "{type: approx-prefix-cache-producer}",
                       "{type: token-producer}"}));
  EXPECT_EQ(d["producers"].Dump(),
            R"(["token-producer","approx-prefix-cache-producer","inflight-load-producer"])");
}

TEST(ConfigLoader, TokenLoadScorerAloneStarts) {
  EXPECT_THAT(Describe(Config({"{type: token-load-scorer}"}))["producers"].Dump(),
              HasSubstr("inflight-load-producer"));
}

TEST(ConfigLoader, TheBuiltInDefaultHasNothingToWarnOf) {
  const auto graph = LoadGraph("", {});
  ASSERT_TRUE(graph.ok());
  EXPECT_THAT(GraphWarnings(**graph), ::testing::IsEmpty());
}

TEST(ConfigLoader, ReportsEveryErrorAtOnceWithItsLine) {
  const std::string error = ErrorOf(R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer, parameters: {thresold: 3}}
- {type: load-aware-scorer, parameters: {threshold: many}}
- {type: no-such-plugin}
colour: blue
)");
  EXPECT_THAT(error, AllOf(HasSubstr("thresold"), HasSubstr("line 4"), HasSubstr("line 5"),
                           HasSubstr("threshold"),
                           HasSubstr("unknown plugin type 'no-such-plugin'"), HasSubstr("colour")));
}

struct BadCase {
  const char* yaml;
  const char* expected;
};

TEST(ConfigLoader, RefusesWhatItCannotHonour) {
  const std::string head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
  const BadCase cases[] = {
      {"plugins: [{type: queue-scorer}, {type: queue-scorer}]", "already called 'queue-scorer'"},
      {"plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: "
       "queue-scorr}]}]",
       "did you mean 'queue-scorer'"},
      {"plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: a}, {name: b}]",
       "need a profile handler"},
      {"plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: a}, {name: b}]",
       "takes one profile"},
      {"plugins: [{type: disagg-profile-handler}]\nschedulingProfiles: [{name: a}]",
       "needs a profile called 'decode'"},
      {"plugins: [{type: openai-parser}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: "
       "openai-parser}]}]",
       "no filter, scorer or picker"},
      {"featureGates: [warp]", "unknown feature gate 'warp'"},
      {"plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: mine}}]",
       "PrefixCacheMatchInfo/mine"},
      {"plugins: [{type: max-score-picker}, {type: random-picker}]", "more than one picker"},
      {"flowControl: {enableEviction: maybe}", "enableEviction"},
      {"featureGates: [flowControl]\nflowControl: {enableEviction: true}\nplugins: [{type: "
       "sheddable-eviction-filter}, {name: b, type: sheddable-eviction-filter}]",
       "at most one plugin of the kind eviction filter"},
      {"flowControl: {defaultRequestTTL: -1s}", "not negative"},
      {"flowControl: {priorityBands: [{priority: 4294967296}]}", "32-bit"},
      {"dataLayer: {peerDiscovery: {pluginRef: x}}",
       "dataLayer.peerDiscovery: no plugin shares state"},
      {"dataLayer: {crossReplicaSyncerPluginRef: x, crossReplicaSyncInterval: 200ms}",
       "dataLayer.crossReplicaSyncInterval: no plugin shares state"},
      {"featureGates: [flowControl=yes]", "expected true or false after '='"},
      {"featureGates: flowControl", "featureGates: expected a list"},
      {"plugins: {type: queue-scorer}", "plugins: expected a list"},
      {"schedulingProfiles: 5", "schedulingProfiles: expected a list"},
      {"dataLayer: [a]", "dataLayer: expected a map"},
      {"dataLayer: {sources: x}", "dataLayer.sources: expected a list"},
      {"flowControl: on", "flowControl: expected a map"},
      {"flowControl: {priorityBands: {priority: 1}}", "flowControl.priorityBands: expected a list"},
      {"requestHandler: {parsers: [{pluginRef: openai-parser}]}",
       "no plugin is called 'openai-parser'"},
      {"plugins: [{type: openai-parser}]\nparser: {pluginRef: openai-parser}\nrequestHandler: "
       "{parsers: [{pluginRef: openai-parser}]}",
       "requestHandler.parsers says it already"},
      {"plugins: [{type: utilization-detector}]\nsaturationDetector: {pluginRef: "
       "utilization-detector}\nflowControl: {saturationDetector: {pluginRef: "
       "utilization-detector}}",
       "flowControl.saturationDetector says it already"},
      {"plugins: [{type: single-profile-handler}, {name: b, type: single-profile-handler}]",
       "more than one profile handler"},
      {"plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: "
       "queue-scorer, weight: .inf}]}]",
       "finite weight"},
      {"plugins: [{name: x}]", "expected a plugin type"},
      {"plugins: [queue-scorer]", "expected a plugin {name, type, parameters}"},
      {"plugins: [{type: prefix-based-pd-decider}, {type: disagg-profile-handler, parameters: "
       "{stageOrder: prefill-first, "
       "deciders: {prefill: prefix-based-pd-decider}}}]\nschedulingProfiles: [{name: decode}, "
       "{name: prefill}]",
       "takes no prefill decider"},
      {"plugins: [{type: metrics-data-source, parameters: {scheme: https, caCertPath: /none}}]",
       "caCertPath: '/none'"},
      {"plugins: [{type: metrics-data-source, parameters: {scheme: https, clientKeyPath: "
       "/dev/null}}]",
       "expected a readable file with PEM"},
      {"plugins: [{type: models-data-source, parameters: {caCertPath: /x}}]",
       "without scheme https"},
      {"plugins: [{type: dcgm-data-source, parameters: {insecureSkipVerify: false}}]",
       "without scheme https"},
      {"plugins: [{type: metrics-data-source, parameters: {interval: 70ms}}]",
       "a multiple of --refresh-metrics-interval, which is 50ms"},
      {"plugins: [{type: metrics-data-source, parameters: {interval: 0s}}]", "a multiple of"},
      {"plugins: [{type: k8s-notification-source, parameters: {kind: Pod}}]", "Kubernetes watch"},
      {"plugins: [{type: multicluster-metrics-data-source}]",
       "multicluster types are not part of llmd"},
      {"plugins: [{type: endpoint-notification-source}, {type: queue-scorer}]\ndataLayer: "
       "{sources: "
       "[{pluginRef: endpoint-notification-source, extractors: [{pluginRef: queue-scorer}]}]}",
       "'queue-scorer' follows no endpoints"},
      {"plugins: [{type: metrics-data-source}, {type: topology-extractor}]\ndataLayer: {sources: "
       "[{pluginRef: metrics-data-source, extractors: [{pluginRef: topology-extractor}]}]}",
       "is no extractor of pages"},
      {"plugins: [{type: precise-prefix-cache-producer, parameters: {kvEventsConfig: {zmqEndpoint: "
       "x}}}]",
       "not supported yet"},
  };
  for (const BadCase& c : cases)
    EXPECT_THAT(ErrorOf(head + c.yaml), HasSubstr(c.expected)) << c.yaml;
  EXPECT_THAT(ErrorOf("kind: Pod"), AllOf(HasSubstr("apiVersion"), HasSubstr("kind")));
}

TEST(ConfigLoader, AlphaPluginsNeedTheFlag) {
  LoadOptions options;
  options.allow_experimental = false;
  const auto graph = LoadGraph(Config({"{type: session-affinity-filter}"}), options);
  ASSERT_FALSE(graph.ok());
  EXPECT_THAT(graph.status().message(), HasSubstr("--allow-experimental-plugins"));
}

TEST(BuiltinPlugins, AreAllDocumented) {
  const PluginRegistry registry = BuiltinPlugins();
  const std::string page = PluginsMarkdown(registry);
  for (const std::string& type : registry.Types()) {
    EXPECT_THAT(page, HasSubstr("`" + type + "`"));
    EXPECT_FALSE((*registry.Find(type))->help.empty()) << type;
    EXPECT_FALSE((*registry.Find(type))->kind.empty()) << type;
  }
}

}  // namespace
}  // namespace llmd::sched
