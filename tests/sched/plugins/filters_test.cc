#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int> Kept(const std::string& plugin, const std::vector<EndpointState>& eps,
                      HeaderList headers = {}) {
  auto s = MakeScheduler(Config({plugin, "{type: random-picker}"}));
  RequestSpec r = Prompt(std::string(400, 'x'));
  r.headers = std::move(headers);
  return Must(*s, r, eps).trace.profiles.at(0).candidates;
}

const std::vector<EndpointState> kRoles = {
    Ep("0", 0, 0, 0, "decode"),         Ep("1", 0, 0, 0, "prefill"),
    Ep("2", 0, 0, 0, "encode"),         Ep("3", 0, 0, 0, "prefill-decode"),
    Ep("4", 0, 0, 0, "encode-prefill"), Ep("5", 0, 0, 0, "encode-prefill-decode"),
    Ep("6", 0, 0, 0, "both"),           Ep("7"),
    Ep("8", 0, 0, 0, "strange")};

TEST(RoleFilters, KeepTheRolesOfTheSpecification) {
  EXPECT_THAT(Kept("{type: decode-filter}", kRoles), ElementsAre(0, 3, 5, 6, 7));
  EXPECT_THAT(Kept("{type: prefill-filter}", kRoles), ElementsAre(1, 3, 4, 5, 6));
  EXPECT_THAT(Kept("{type: encode-filter}", kRoles), ElementsAre(2, 4, 5));
}

TEST(LabelSelectorFilter, MatchesLabelsAndExpressions) {
  EXPECT_THAT(
      Kept("{type: label-selector-filter, parameters: {matchLabels: {llm-d.ai/role: encode}}}",
           kRoles),
      ElementsAre(2));
  EXPECT_THAT(Kept("{type: by-label-selector, parameters: {matchExpressions: [{key: llm-d.ai/role, "
                   "operator: NotIn, values: "
                   "[decode, prefill, encode, both]}]}}",
                   kRoles),
              ElementsAre(3, 4, 5, 7, 8));
  EXPECT_THAT(Kept("{type: label-selector-filter, parameters: {matchExpressions: [{key: "
                   "llm-d.ai/role, operator: DoesNotExist}]}}",
                   kRoles),
              ElementsAre(7));
  EXPECT_THAT(Kept("{type: label-selector-filter, parameters: {matchLabels: {x: y}}}", kRoles),
              IsEmpty());
}

TEST(ByLabel, TakesValuesAndTheMissingLabelOnRequest) {
  EXPECT_THAT(
      Kept("{type: by-label, parameters: {label: llm-d.ai/role, validValues: [decode]}}", kRoles),
      ElementsAre(0));
  EXPECT_THAT(Kept("{type: by-label, parameters: {label: llm-d.ai/role, validValues: [decode], "
                   "allowsNoLabel: true}}",
                   kRoles),
              ElementsAre(0, 7));
}

TEST(SessionAffinityFilter, KeepsThePinnedOneOrAll) {
  const std::vector<EndpointState> eps = {Ep("a"), Ep("b")};
  EXPECT_THAT(Kept("{type: session-affinity-filter}", eps, {{"x-session-token", "ZGVmYXVsdC9i"}}),
              ElementsAre(1));
  EXPECT_THAT(Kept("{type: session-affinity-filter}", eps, {{"x-session-token", "nonsense"}}),
              ElementsAre(0, 1));
}

TEST(ContextLengthAware, FiltersOnlyWhenAsked) {
  EndpointState small = Ep("a"), large = Ep("b");
  small.info.labels["llm-d.ai/context-length-range"] = "0-50";
  large.info.labels["llm-d.ai/context-length-range"] = "51-1000";
  EXPECT_THAT(Kept("{type: context-length-aware}", {small, large}), ElementsAre(0, 1));
  EXPECT_THAT(
      Kept("{type: context-length-aware, parameters: {enableFiltering: true}}", {small, large}),
      ElementsAre(1));
}

TEST(ConcurrencyDetector, AsAFilterEmptiesAndMeansSaturated) {
  auto s = MakeScheduler(R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: concurrency-detector, parameters: {maxConcurrency: 1}}, {type: inflight-load-producer}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: concurrency-detector}]}]
)");
  RequestSpec r = Prompt("p");
  r.keep_in_flight = true;
  EXPECT_TRUE(Must(*s, r, {Ep("a")}).ok);
  const Decision full = Must(*s, r, {Ep("a")});
  EXPECT_FALSE(full.ok);
  EXPECT_EQ(full.denied_status, 429);
  EXPECT_EQ(full.denied_reason, "rejected-saturated");
}

}  // namespace
}  // namespace llmd::sched
