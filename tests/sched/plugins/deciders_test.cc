#include "sched/support.h"

namespace llmd::sched {
namespace {

std::string Disagg(const std::string& decider, const std::string& extra = "") {
  return R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: queue-scorer}
- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 64, promptTokens: 128}}
- {type: always-disagg-pd-decider}
- {type: never-disagg-pd-decider}
- {type: disagg-profile-handler, parameters: {)" +
         (decider.empty() ? "" : "deciders: {prefill: " + decider + "}") + extra + R"(}}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: queue-scorer}]}
- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer}]}
)";
}

const std::vector<EndpointState> kPool = {Ep("p", 0, 0, 0, "prefill"), Ep("d", 0, 0, 0, "decode")};
RequestSpec Tokens(size_t n, char c = 'x') {
  return Prompt(std::string(n * 4, c));
}

TEST(PrefixBasedPdDecider, GatesOnPromptLengthAndUncachedTokens) {
  auto s = MakeScheduler(Disagg("prefix-based-pd-decider"));
  EXPECT_EQ(Must(*s, Tokens(127), kPool).decision_type, "decode-only");
  const Decision first = Must(*s, Tokens(128, 'y'), kPool);
  EXPECT_EQ(first.decision_type, "prefill-decode");
  EXPECT_EQ(first.prefill, "default/p");
  ASSERT_EQ(first.set_headers.size(), 1u);
  EXPECT_EQ(first.set_headers[0].first, "x-prefiller-host-port");
  EXPECT_EQ(first.set_headers[0].second, kPool[0].info.HostPort());
  // Now all of it is cached on the decode endpoint; with 63 more tokens still too little is new,
  // with 64 enough.
  EXPECT_EQ(Must(*s, Tokens(128, 'y'), kPool).decision_type, "decode-only");
  RequestSpec more = Tokens(128, 'y');
  more.prompt += std::string(63 * 4, 'z');
  EXPECT_EQ(Must(*s, more, kPool).decision_type, "decode-only");
  RequestSpec enough = Tokens(128, 'y');
  enough.prompt += std::string(64 * 4, 'w');
  EXPECT_EQ(Must(*s, enough, kPool).decision_type, "prefill-decode");
}

TEST(DisaggProfileHandler, AlwaysNeverAndWithoutDecider) {
  EXPECT_EQ(
      Must(*MakeScheduler(Disagg("always-disagg-pd-decider")), Tokens(1), kPool).decision_type,
      "prefill-decode");
  EXPECT_EQ(
      Must(*MakeScheduler(Disagg("never-disagg-pd-decider")), Tokens(999), kPool).decision_type,
      "decode-only");
  const Decision none = Must(*MakeScheduler(Disagg("")), Tokens(999), kPool);
  EXPECT_EQ(none.decision_type, "decode-only");
  EXPECT_EQ(none.trace.profiles.size(), 1u);
}

TEST(DisaggProfileHandler, OrderFollowsStageOrder) {
  const Decision decode_first =
      Must(*MakeScheduler(Disagg("always-disagg-pd-decider")), Tokens(1), kPool);
  EXPECT_EQ(decode_first.trace.profiles[0].profile, "decode");
  EXPECT_EQ(decode_first.trace.profiles[1].profile, "prefill");
  const Decision prefill_first =
      Must(*MakeScheduler(Disagg("", "stageOrder: prefill-first")), Tokens(1), kPool);
  EXPECT_EQ(prefill_first.trace.profiles[0].profile, "prefill");
  EXPECT_EQ(prefill_first.decision_type, "prefill-decode");
  EXPECT_EQ(prefill_first.picked[0].endpoint, "default/d");
}

TEST(DisaggProfileHandler, FallsBackToDecodeOnlyAndFailsWithoutDecode) {
  auto s = MakeScheduler(Disagg("always-disagg-pd-decider"));
  const Decision no_prefill = Must(*s, Tokens(1), {kPool[1]});
  EXPECT_TRUE(no_prefill.ok);
  EXPECT_EQ(no_prefill.decision_type, "decode-only");
  EXPECT_TRUE(no_prefill.set_headers.empty());
  const Decision no_decode = Must(*s, Tokens(1), {kPool[0]});
  EXPECT_FALSE(no_decode.ok);
  EXPECT_EQ(no_decode.denied_status, 503);
}

TEST(DisaggProfileHandler, SameDualRoleEndpointNeedsNoHeader) {
  auto s = MakeScheduler(Disagg("always-disagg-pd-decider"));
  const Decision d = Must(*s, Tokens(1), {Ep("x", 0, 0, 0, "prefill-decode")});
  EXPECT_EQ(d.decision_type, "decode-only");
  EXPECT_TRUE(d.set_headers.empty());
}

}  // namespace
}  // namespace llmd::sched
