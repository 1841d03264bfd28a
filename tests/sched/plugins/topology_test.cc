#include "plugins/data/topology.h"

#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

EndpointState At(const std::string& name, const std::string& role, const std::string& place) {
  EndpointState e = Ep(name, 0, 0, 0, role);
  e.info.address = "10.0.0." + std::to_string(std::hash<std::string>()(name) % 200 + 1);
  // "host/rack/zone/region"; "-" = without that label.
  const char* const labels[] = {"host", "rack", "zone", "region"};
  std::stringstream parts(place);
  std::string part;
  for (const char* label : labels) {
    if (std::getline(parts, part, '/') && part != "-") e.info.labels[label] = part;
  }
  return e;
}

const std::string kExtractor =
    "{type: topology-extractor, parameters: {hostname: host, rack: rack, zone: zone, region: "
    "region}}";

// Two stages with `near` in the second one.
std::string TwoStages(const std::string& near, bool prefill_first) {
  const std::string handler =
      prefill_first ? "{type: disagg-profile-handler, parameters: {stageOrder: prefill-first}}"
                    : "{type: disagg-profile-handler, parameters: {deciders: {prefill: "
                      "always-disagg-pd-decider}}}";
  const std::string plain = "[{pluginRef: F-filter}]",
                    second = "[{pluginRef: F-filter}, {pluginRef: near}]";
  const auto profile = [&](std::string name, std::string plugins) {
    plugins.replace(plugins.find("F-"), 2, name + "-");
    return "- {name: " + name + ", plugins: " + plugins + "}\n";
  };
  return Config({kExtractor, "{type: prefill-filter}", "{type: decode-filter}",
                 "{type: always-disagg-pd-decider}", handler, near}) +
         "schedulingProfiles:\n" + profile("prefill", prefill_first ? plain : second) +
         profile("decode", prefill_first ? second : plain);
}

std::map<std::string, double> NearScores(bool prefill_first,
                                         const std::vector<EndpointState>& pool) {
  auto s = MakeScheduler(TwoStages("{name: near, type: topology-affinity-scorer}", prefill_first));
  const Decision d = Must(*s, Prompt("x"), pool);
  std::map<std::string, double> out;
  const ProfileTrace& second = d.trace.profiles.at(1);
  for (size_t i = 0; i < second.candidates.size(); ++i)
    out[d.trace.endpoints[second.candidates[i]].substr(8)] = second.scores.at(0).raw[i];
  return out;
}

std::vector<std::string> NearKept(const std::string& parameters,
                                  const std::vector<EndpointState>& pool) {
  auto s = MakeScheduler(TwoStages(
      "{name: near, type: topology-affinity-filter, parameters: " + parameters + "}", false));
  const Decision d = Must(*s, Prompt("x"), pool);
  std::vector<std::string> out;
  for (int i : d.trace.profiles.at(1).filters.at(1).kept)
    out.push_back(d.trace.endpoints[i].substr(8));
  return out;
}

const std::vector<EndpointState>& Pool() {
  static const std::vector<EndpointState> kPool = {
      At("d", "decode", "h1/r1/z1/g1"),       At("host", "prefill", "h1/r1/z1/g1"),
      At("rack", "prefill", "h2/r1/z1/g1"),   At("zone", "prefill", "h3/r2/z1/g1"),
      At("region", "prefill", "h4/r3/z2/g1"), At("far", "prefill", "h5/r4/z3/g2"),
      At("bare", "prefill", "-/-/-/-")};
  return kPool;
}

TEST(TopologyAffinityScorer, GradesByTheTightestSharedLevel) {
  const std::map<std::string, double> want = {{"host", 1},     {"rack", .2}, {"zone", .05},
                                              {"region", .02}, {"far", 0},   {"bare", 0}};
  EXPECT_EQ(NearScores(false, Pool()), want);
}

TEST(TopologyAffinityScorer, PrefillFirstLooksAtThePrefiller) {
  const auto scores =
      NearScores(true, {At("p", "prefill", "h1/r1/z1/g1"), At("same", "decode", "h1/r1/z1/g1"),
                        At("other", "decode", "h2/r9/z1/g1")});
  EXPECT_EQ(scores, (std::map<std::string, double>{{"same", 1}, {"other", .05}}));
}

TEST(TopologyAffinityScorer, GivesZeroWithoutAPeerOrAnExtractor) {
  auto s = MakeScheduler(Config({kExtractor, "{type: topology-affinity-scorer}"}));
  EXPECT_THAT(Raw(Must(*s, Prompt("x"), {Pool()[0], Pool()[1]})), ElementsAre(0, 0));
  auto without = MakeScheduler(Config({"{type: topology-affinity-scorer}"}));
  EXPECT_THAT(without->Warnings(), Contains(HasSubstr("no topology-extractor is configured")));
  EXPECT_THAT(Raw(Must(*without, Prompt("x"), {Pool()[0]})), ElementsAre(0));
}

TEST(TopologyAffinityFilter, KeepsWhatIsNearEnough) {
  EXPECT_THAT(NearKept("{}", Pool()), ElementsAre("host"));
  EXPECT_THAT(NearKept("{minAffinity: rack}", Pool()), ElementsAre("host", "rack"));
  EXPECT_THAT(NearKept("{minAffinity: zone}", Pool()), ElementsAre("host", "rack", "zone"));
  EXPECT_THAT(NearKept("{minAffinity: region}", Pool()),
              ElementsAre("host", "rack", "zone", "region"));
}

TEST(TopologyAffinityFilter, FailsOpen) {
  EXPECT_THAT(NearKept("{}", {Pool()[0], Pool()[4], Pool()[5]}), ElementsAre("region", "far"));
  auto s = MakeScheduler(Config({kExtractor, "{type: topology-affinity-filter}"}));
  EXPECT_EQ(Must(*s, Prompt("x"), Pool()).trace.profiles[0].filters[0].kept.size(), Pool().size());
}

TEST(TopologyAffinity, TakesAThousandEndpointsAndATieOfAll) {
  std::vector<EndpointState> pool = {Pool()[0]};
  for (int i = 0; i < 999; ++i)
    pool.push_back(At("p" + std::to_string(i), "prefill", i % 2 ? "h1/r1/z1/g1" : "h9/r1/z1/g1"));
  EXPECT_EQ(NearKept("{}", pool).size(), 499u);
  EXPECT_EQ(NearKept("{minAffinity: rack}", pool).size(), 999u);
  double sum = 0;
  for (const auto& [name, score] : NearScores(false, pool)) sum += score;
  EXPECT_NEAR(sum, 499 + 500 * .2, 1e-9);
}

TEST(TopologyExtractor, TakesTheAddressForTheHostWithoutALabel) {
  EndpointState d = At("d", "decode", "-"), a = At("a", "prefill", "-"), b = a;
  a.info.address = d.info.address;
  b.info.name = "b";
  b.info.address = "10.1.1.1";
  EXPECT_EQ(NearScores(false, {d, a, b}), (std::map<std::string, double>{{"a", 1}, {"b", 0}}));
}

TEST(TopologyExtractor, IsFoundByNameAndMayHangOnTheNotificationSource) {
  const std::string named = "{name: mine, type: topology-extractor}";
  const auto load = [&](const std::string& producer) {
    return LoadGraph(
               Config({named, "{type: queue-scorer}", "{type: endpoint-notification-source}",
                       "{type: topology-affinity-scorer, parameters: {topologyProducerName: " +
                           producer + "}}"}) +
                   "dataLayer: {sources: [{pluginRef: endpoint-notification-source, extractors: "
                   "[{pluginRef: mine}]}]}\n",
               {})
        .status();
  };
  EXPECT_TRUE(load("mine").ok()) << load("mine").ToString();
  EXPECT_THAT(load("yours").message(), HasSubstr("no plugin is called 'yours'"));
  EXPECT_THAT(load("queue-scorer").message(), HasSubstr("'queue-scorer' is no topology-extractor"));
}

TEST(Topology, NothingKnownEqualsNothing) {
  EXPECT_EQ(Closest({}, {}), kNoLevel);
  EXPECT_FALSE(Topology().known());
  EXPECT_EQ(Closest({{1, 2, 3, 4}}, {{5, 0, 3, 4}}), kZone);
}

}  // namespace
}  // namespace llmd::sched
