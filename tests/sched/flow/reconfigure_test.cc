#include "sched/flow/flow_support.h"

namespace llmd::sched {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Reconfigure : public FlowFixture {
 protected:
  void Change(const std::string& flow,
              const std::vector<std::string>& plugins = {"{type: queue-scorer}"}) {
    flow_->Reconfigure(FlowGraph(flow, plugins));
  }
  void TurnOff() {
    const auto graph = LoadGraph(Config({"{type: queue-scorer}"}), {});
    ASSERT_TRUE(graph.ok());
    flow_->Reconfigure(*graph);
  }
  FlowRequest Due(int in_seconds) { return {.slo_deadline = clock_.Now() + seconds(in_seconds)}; }
};

TEST_F(Reconfigure, KeepsPlacesAndTakesTheNewPolicies) {
  Start("{}");
  Ask("a", Due(9));
  Ask("b", Due(1));
  Ask("c", 5);
  clock_.Advance(seconds(2));
  Change(
      "{defaultRequestTTL: 5s, defaultPriorityBand: {orderingPolicyRef: "
      "slo-deadline-ordering-policy}}",
      {"{type: slo-deadline-ordering-policy}"});
  EXPECT_EQ(flow_->size(), 3u);
  EXPECT_THAT(Open(2), ElementsAre("c", "b"));
  Pass(seconds(4));
  EXPECT_THAT(Events(), ElementsAre("a!EvictedTTL")) << "the new TTL, from its arrival";
}

TEST_F(Reconfigure, WaitingRequestsMayBeCancelledByTheTicketTheyHad) {
  Start("{}");
  const uint64_t ticket = Ask("a");
  Ask("b");
  Change("{defaultPriorityBand: {fairnessPolicyRef: round-robin-fairness-policy}}",
         {"{type: round-robin-fairness-policy}"});
  flow_->Cancel(ticket);
  EXPECT_THAT(Events(), ElementsAre("a!EvictedContextCancelled"));
  EXPECT_THAT(Open(5), ElementsAre("b"));
}

TEST_F(Reconfigure, RequestsInFlightEndUnderAnotherFairness) {
  Start("{defaultPriorityBand: {fairnessPolicyRef: virtual-token-counter-fairness-policy}}",
        {"{type: virtual-token-counter-fairness-policy}"});
  Ask("a");
  Ask("b", 0, "g");
  EXPECT_THAT(Open(1), ElementsAre("a"));
  Change("{defaultPriorityBand: {fairnessPolicyRef: deficit-round-robin-fairness-policy}}",
         {"{type: deficit-round-robin-fairness-policy}"});
  End("a", {.prompt_tokens = 10, .output_tokens = 10, .known = true});
  EXPECT_THAT(Open(1), ElementsAre("b"));
  End("b");
  Pass(FlowController::kIdleFlow + seconds(20));
  EXPECT_EQ(flow_->flow_count(), 0u) << "idle flows are dropped as ever";
}

TEST_F(Reconfigure, CapacitiesAreTheNewOnes) {
  Start("{}");
  Ask("a");
  Ask("b");
  Change("{priorityBands: [{priority: 0, maxRequests: 2}]}");
  EXPECT_THAT(Events(), IsEmpty()) << "what waits stays";
  Ask("c");
  EXPECT_THAT(Events(), ElementsAre("c!RejectedCapacity"));
}

TEST_F(Reconfigure, TurnedOffItLetsEverythingThrough) {
  Start("{priorityBands: [{priority: 0, maxRequests: 2}]}");
  Ask("a");
  Ask("b", 3);
  TurnOff();
  EXPECT_THAT(Events(), ElementsAre("b", "a"));
  for (const char* late : {"c", "d", "e"}) Ask(late);
  EXPECT_THAT(Events(), ElementsAre("c", "d", "e"));
  EXPECT_EQ(flow_->size(), 0u);
  for (const char* name : {"a", "b", "c", "d", "e"}) End(name);
  Change("{}");
  Ask("f");
  EXPECT_THAT(Events(), IsEmpty()) << "on again, the gate is closed";
  EXPECT_THAT(Open(1), ElementsAre("f"));
}

TEST_F(Reconfigure, RevocableRequestsStayRevocable) {
  Start("{enableEviction: true}");
  Ask("sheddable", -1);
  EXPECT_THAT(Open(1), ElementsAre("sheddable"));
  int revoked = 0;
  flow_->Revocable(tickets_.at("sheddable"), [&] { ++revoked; });
  Change("{enableEviction: true, defaultRequestTTL: 9s}");
  Ask("important", 5);
  EXPECT_EQ(revoked, 1);
  End("sheddable");
  EXPECT_THAT(Open(1), ElementsAre("important"));
}

TEST_F(Reconfigure, AReloadWhileOneIsTakenBackTakesNoMore) {
  const std::string flow = "{enableEviction: true}";
  Start(flow);
  int revoked = 0;
  for (const char* name : {"a", "b", "c", "d"}) {
    Ask(name, -1);
    ASSERT_THAT(Open(1), ElementsAre(name));
    flow_->Revocable(tickets_.at(name), [&] { ++revoked; });
  }
  Ask("important", 5);
  EXPECT_EQ(revoked, 1);
  for (int i = 0; i < 3; ++i) Change(flow);
  EXPECT_EQ(revoked, 1);
  Pass(Evictor::kConfirmationTimeout);
  Pass(seconds(1));
  EXPECT_EQ(revoked, 2) << "the first one was given up";
}

// Of the next `n` requests, how many are a's; each ends before the next one leaves.
class TokenPolicies : public Reconfigure, public ::testing::WithParamInterface<const char*> {
 protected:
  static constexpr FlowUsage kText = {.prompt_tokens = 100, .output_tokens = 50, .known = true};
  static constexpr FlowUsage kPicture = {.prompt_tokens = 1500, .output_tokens = 50, .known = true};
  std::string Flow() const {
    return "{defaultRequestTTL: 0s, defaultPriorityBand: {fairnessPolicyRef: f}}";
  }
  std::vector<std::string> Policy(int expected) const {
    return {std::string("{name: f, type: ") + GetParam() +
            ", parameters: {expectedOutputTokens: " + std::to_string(expected) + "}}"};
  }
  // Flow a has had so many texts by itself.
  void Begin(int history) {
    Start(Flow(), Policy(50));
    Events();
    for (int i = 0; i < history; ++i) {
      const std::string name = "a" + std::to_string(next_++);
      Ask(name, {.flow = "a", .prompt_tokens = 100});
      EXPECT_THAT(Open(1), ElementsAre(name));
      EndOnly(name, kText);
    }
  }
  void AskMany(const std::string& flow, int n) {
    for (int i = 0; i < n; ++i)
      Ask(flow + std::to_string(next_++), {.flow = flow, .prompt_tokens = 100});
  }
  int OfA(int n) {
    int out = 0;
    for (int i = 0; i < n; ++i) {
      const std::vector<std::string> next = Open(1);
      if (next.size() != 1) return -1;
      out += next[0][0] == 'a';
      EndOnly(next[0], kText);
    }
    return out;
  }
  // Nothing takes its place.
  void EndOnly(const std::string& name, FlowUsage usage) {
    saturation_ = 1;
    End(name, usage);
    saturation_ = -1;
    room_ = std::max<size_t>(in_flight_, 1);
  }
  int next_ = 0;
};

TEST_P(TokenPolicies, AnOverestimateIsNoCreditOnceItsCostIsKnown) {
  for (const int history : {0, 1, 20}) {
    for (const int ends_after : {0, 1, 20, 100, 200}) {
      Begin(history);
      Ask("picture", {.flow = "a", .prompt_tokens = 250'000});
      EXPECT_THAT(Open(1), ElementsAre("picture"));
      AskMany("a", 250);
      AskMany("b", 250);
      const int before = OfA(ends_after);
      EndOnly("picture", kPicture);
      EXPECT_NEAR(before + OfA(200 - ends_after), 100, 3) << history << " " << ends_after;
    }
  }
}

TEST_P(TokenPolicies, AnOverestimateIsNoCreditWhoeverComesFirst) {
  Begin(20);
  Ask("picture", {.flow = "a", .prompt_tokens = 250'000});
  EXPECT_THAT(Open(1), ElementsAre("picture"));
  AskMany("b", 250);
  AskMany("a", 250);
  EndOnly("picture", kPicture);
  EXPECT_NEAR(OfA(200), 100, 3);
}

TEST_P(TokenPolicies, OverestimatesAmongOthersInFlightAreNoCredit) {
  Begin(20);
  Ask("picture", {.flow = "a", .prompt_tokens = 250'000});
  AskMany("a", 5);
  Ask("other picture", {.flow = "a", .prompt_tokens = 100'000});
  const std::vector<std::string> running = Open(7);
  ASSERT_EQ(running.size(), 7u);
  AskMany("a", 250);
  AskMany("b", 250);
  for (const std::string& name : running)
    EndOnly(name, name.ends_with("picture") ? kPicture : kText);
  EXPECT_NEAR(OfA(200), 100, 3);
}

// A third flow is put beside b, which owes more; what a has in flight is the matter of a and b.
TEST_P(TokenPolicies, AnOverestimateIsSettledWhereNobodyWasPutBesideIt) {
  Begin(20);
  Ask("dear", {.flow = "b", .prompt_tokens = 100});
  EXPECT_THAT(Open(1), ElementsAre("dear"));
  EndOnly("dear", {.prompt_tokens = 20'000, .known = true});
  Ask("picture", {.flow = "a", .prompt_tokens = 250'000});
  AskMany("a", 250);
  EXPECT_THAT(Open(1), ElementsAre("picture"));
  AskMany("b", 250);
  AskMany("c", 250);
  EndOnly("picture", kPicture);
  EXPECT_GE(OfA(60), 55) << "about 90 texts behind";
}

TEST_P(TokenPolicies, WhatWasRefusedAfterItsDispatchCostsNothing) {
  Start(Flow(), Policy(50));
  AskMany("a", 700);
  AskMany("b", 700);
  std::map<char, int> asked, ran;
  for (int i = 0; i < 900; ++i) {
    const std::vector<std::string> next = Open(1);
    ASSERT_EQ(next.size(), 1u);
    const char flow = next[0][0];
    const bool refused = flow == 'a' && asked[flow]++ % 2 == 0;
    EndOnly(next[0], refused ? FlowUsage{.ran = false} : kText);
    ran[flow] += !refused;
  }
  EXPECT_NEAR(static_cast<double>(ran['a']) / ran['b'], 1, 0.02);
}

// What b was put beside is not taken for less when the flow has become known.
TEST_P(TokenPolicies, AnOverestimateStaysWhatTheFirstWasPutBeside) {
  Begin(0);
  Ask("picture", {.flow = "a", .prompt_tokens = 250'000});
  EXPECT_THAT(Open(1), ElementsAre("picture"));
  AskMany("a", 250);
  AskMany("b", 250);
  EXPECT_NEAR(OfA(20), 10, 1);
  AskMany("c", 250);
  std::map<char, int> served;
  const auto serve = [&](int n) {
    for (int i = 0; i < n; ++i) {
      const std::vector<std::string> next = Open(1);
      ASSERT_EQ(next.size(), 1u);
      ++served[next[0][0]];
      EndOnly(next[0], kText);
    }
  };
  serve(60);
  EndOnly("picture", kPicture);
  serve(90);
  for (const char flow : {'a', 'b', 'c'}) EXPECT_NEAR(served[flow], 50, 3) << flow;
}

TEST_P(TokenPolicies, AReloadChargesNobodyTwiceForWhatIsInFlight) {
  Start(Flow(), Policy(50));
  AskMany("a", 50);
  const std::vector<std::string> running = Open(50);
  ASSERT_EQ(running.size(), 50u);
  AskMany("a", 250);
  AskMany("b", 250);
  Change(Flow(), Policy(51));
  for (const std::string& name : running) EndOnly(name, kText);
  EXPECT_NEAR(OfA(200), 100, 3);
}

// Their slots were used before, by requests that were charged.
TEST_P(TokenPolicies, WhatIsDispatchedWithTheGateOffIsChargedToNobody) {
  for (const bool used : {false, true}) {
    Start(Flow(), Policy(50));
    Events();
    if (used) {
      AskMany("a", 50);
      for (const std::string& name : Open(50)) EndOnly(name, kText);
    }
    AskMany("a", 50);
    TurnOff();
    const std::vector<std::string> free = Events();
    ASSERT_EQ(free.size(), 50u);
    for (const std::string& name : free) EndOnly(name, kText);
    Change(Flow(), Policy(50));
    AskMany("a", 250);
    AskMany("b", 250);
    EXPECT_NEAR(OfA(200), 100, 3) << used;
  }
}

TEST_P(TokenPolicies, AReloadForgetsNoDebt) {
  Start(Flow(), Policy(50));
  AskMany("a", 100);
  AskMany("b", 300);
  EXPECT_NEAR(OfA(2), 1, 0);
  Ask("long", {.flow = "c", .prompt_tokens = 100});
  for (std::string name; name != "long";) {
    const std::vector<std::string> next = Open(1);
    ASSERT_EQ(next.size(), 1u);
    name = next[0];
    EndOnly(name, name == "long" ? FlowUsage{.prompt_tokens = 20'000, .known = true} : kText);
  }
  Change(Flow(), Policy(51));
  Ask("again", {.flow = "c", .prompt_tokens = 100});
  for (int i = 0; i < 150; ++i) {
    const std::vector<std::string> next = Open(1);
    ASSERT_EQ(next.size(), 1u);
    EXPECT_NE(next[0], "again") << i;
    EndOnly(next[0], kText);
  }
}

INSTANTIATE_TEST_SUITE_P(Flow, TokenPolicies,
                         ::testing::Values("deficit-round-robin-fairness-policy",
                                           "virtual-token-counter-fairness-policy"),
                         [](const auto& info) {
                           return std::string(info.param[0] == 'd' ? "Deficit" : "Counters");
                         });

}  // namespace
}  // namespace llmd::sched
