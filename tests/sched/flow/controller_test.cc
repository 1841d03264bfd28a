#include "flow/controller.h"

#include <random>
#include <thread>

#include "sched/flow/flow_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class FlowControllerTest : public FlowFixture {};

TEST_F(FlowControllerTest, HigherBandsFirstThenArrival) {
  Start("{}");
  Ask("a", 0);
  Ask("b", 5);
  Ask("c", -1);
  Ask("d", 5);
  EXPECT_THAT(Open(2), ElementsAre("b", "d"));
  EXPECT_THAT(Open(9), ElementsAre("a", "c"));
  EXPECT_EQ(flow_->size(), 0u);
}

TEST_F(FlowControllerTest, AnOpenGateDispatchesAtOnceWithoutAReason) {
  Start("{}");
  room_ = 2;
  Ask("a", 0);
  EXPECT_THAT(Events(), ElementsAre("a"));
  EXPECT_EQ(last_.reason, "");
  EXPECT_EQ(last_.waited, Duration::zero());
}

TEST_F(FlowControllerTest, ACompletionDispatchesWithoutATick) {
  Start("{}");
  room_ = 2;
  Ask("a", 0);
  Ask("b", 0);
  Ask("c", 0);
  EXPECT_THAT(Events(), ElementsAre("a"));
  clock_.Advance(milliseconds(7));
  End("a");
  EXPECT_THAT(Events(), ElementsAre("b"));
  EXPECT_EQ(last_.waited, milliseconds(7));
  EXPECT_EQ(last_.reason, "saturated");
  flow_->Complete(tickets_.at("a"), {});  // once only
  EXPECT_THAT(Events(), IsEmpty());
}

TEST_F(FlowControllerTest, AClosedGateHoldsLowerBandsWhateverTheirCeiling) {
  Start("{usageLimitPolicyPluginRef: hold, priorityBands: [{priority: 5}, {priority: 0}]}",
        {"{name: hold, type: priority-holdback-policy, parameters: {minCeiling: 0.5}}"});
  saturation_ = 0.7;
  Ask("low", 0);
  EXPECT_THAT(Events(), IsEmpty());
  Ask("high", 5);
  EXPECT_THAT(Events(), ElementsAre("high"));  // below its own ceiling
  saturation_ = 1;
  Ask("high2", 5);
  saturation_ = 0.4;
  flow_->Pump();
  EXPECT_THAT(Events(), ElementsAre("high2", "low"));
}

TEST_F(FlowControllerTest, OneThatThrowsWhenItIsToldHoldsUpNobody) {
  Start("{}");
  FlowRequest thrower;
  thrower.resume = [](const FlowResult&) { throw std::runtime_error("told"); };
  flow_->Enqueue(std::move(thrower));
  Ask("next");
  EXPECT_THROW(Open(1), std::runtime_error);
  EXPECT_THAT(Open(1), ElementsAre("next"));
}

TEST_F(FlowControllerTest, DeadlinesOrderAFlow) {
  Start("{defaultPriorityBand: {orderingPolicyRef: slo-deadline-ordering-policy}}",
        {"{type: slo-deadline-ordering-policy}"});
  Ask("none");
  Ask("late", FlowRequest{.slo_deadline = TimePoint(seconds(20))});
  Ask("soon", FlowRequest{.slo_deadline = TimePoint(seconds(10))});
  EXPECT_THAT(Open(3), ElementsAre("soon", "late", "none"));
}

TEST_F(FlowControllerTest, EdfCountsTheClientsOwnTtl) {
  Start("{defaultPriorityBand: {orderingPolicyRef: edf-ordering-policy}}",
        {"{type: edf-ordering-policy}"});
  Ask("a");
  Ask("b", FlowRequest{.ttl = seconds(5)});
  Ask("c", FlowRequest{.ttl = seconds(90)});  // may only shorten
  clock_.Advance(seconds(1));
  Ask("d");
  EXPECT_THAT(Open(4), ElementsAre("b", "a", "c", "d"));
}

TEST_F(FlowControllerTest, CapacityOfABandAndOfAllInRequestsAndBytes) {
  Start(
      "{maxRequests: 3, maxBytes: 100, priorityBands: [{priority: 1, maxRequests: 1}, "
      "{priority: 2, maxBytes: 30}]}");
  Ask("a", 1);
  Ask("b", 1);
  EXPECT_THAT(Events(), ElementsAre("b!RejectedCapacity"));
  Ask("big", FlowRequest{.priority = 2, .bytes = 31});
  EXPECT_THAT(Events(), ElementsAre("big!RejectedCapacity"));
  Ask("huge", FlowRequest{.bytes = 91});
  EXPECT_THAT(Events(), ElementsAre("huge!RejectedCapacity"));
  Ask("c");
  Ask("d");
  Ask("e");
  EXPECT_THAT(Events(), ElementsAre("e!RejectedCapacity"));
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_flow_control_global_capacity_utilization_"
                                           "requests{inference_pool=\"pool\"} 1.0"));
  EXPECT_THAT(Open(9), ElementsAre("a", "c", "d"));
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("llm_d_epp_flow_control_capacity_utilization_requests{inference_pool="
                        "\"pool\",priority=\"1\"} 0.0"));
}

TEST_F(FlowControllerTest, TtlCancelAndStop) {
  Start("{defaultRequestTTL: 10s}");
  Ask("a");
  const uint64_t ticket = Ask("c");
  flow_->Cancel(ticket);
  flow_->Cancel(ticket);
  EXPECT_THAT(Events(), ElementsAre("c!EvictedContextCancelled"));
  Ask("own", FlowRequest{.ttl = seconds(2)});
  Ask("long", FlowRequest{.ttl = seconds(20)});
  Pass(seconds(2));
  EXPECT_THAT(Events(), ElementsAre("own!EvictedTTL"));
  Pass(seconds(7));
  Ask("g");
  EXPECT_THAT(Events(), IsEmpty());
  Pass(seconds(1));
  EXPECT_THAT(Events(), ElementsAre("a!EvictedTTL", "long!EvictedTTL"));
  flow_->Stop();
  Ask("h");
  EXPECT_THAT(Events(), ElementsAre("g!EvictedOther", "h!RejectedOther"));
}

TEST_F(FlowControllerTest, ATicketOfAnotherLifeOfItsSlotDoesNothing) {
  Start("{}");
  const uint64_t old = Ask("a");
  flow_->Cancel(old);
  Events();
  Ask("b");
  flow_->Cancel(old);
  flow_->Complete(old, {});
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_EQ(flow_->size(), 1u);
}

TEST_F(FlowControllerTest, AnEmptyPoolRestartsTheClockButNotTheClientsOwn) {
  Start("{defaultRequestTTL: 10s, noEndpointRequestTTL: 4s}");
  Ask("a");
  Ask("own", FlowRequest{.ttl = milliseconds(9500)});
  clock_.Advance(seconds(9));
  empty_ = true;
  flow_->Expire();
  Pass(milliseconds(500));
  EXPECT_THAT(Events(), ElementsAre("own!EvictedNoEndpoints"));
  Pass(seconds(3));
  EXPECT_TRUE(Open(5).empty());  // nothing is dispatched to an empty pool
  empty_ = false;
  flow_->Expire();  // usable again: the clock starts anew
  empty_ = true;
  flow_->Expire();
  Pass(seconds(3));
  EXPECT_THAT(Events(), IsEmpty());
  Pass(seconds(1));
  EXPECT_THAT(Events(), ElementsAre("a!EvictedNoEndpoints"));
  EXPECT_EQ(last_.reason, "no-endpoints");
}

TEST_F(FlowControllerTest, AFullQueueOfAnEmptyPoolHasNoEndpoints) {
  Start("{maxRequests: 1}");
  empty_ = true;
  Ask("a");
  Ask("b");
  EXPECT_THAT(Events(), ElementsAre("b!RejectedNoEndpoints"));
}

TEST_F(FlowControllerTest, StaleMetricsAreGivenAsTheReason) {
  Start("{}");
  stale_ = 2;
  Ask("a");
  Open(1);
  EXPECT_EQ(last_.reason, "stale-metrics");
}

TEST_F(FlowControllerTest, RetryAfterFollowsTheDrainRate) {
  Start("{defaultRequestTTL: 0s}");
  EXPECT_EQ(flow_->RetryAfter(0), 1);  // nothing waits
  for (int i = 0; i < 1000; ++i) Ask("r" + std::to_string(i));
  EXPECT_EQ(flow_->RetryAfter(0), 60);  // nothing moves
  for (int i = 0; i < 500; ++i) {       // ten a second
    clock_.Advance(milliseconds(100));
    Open(1);
  }
  EXPECT_NEAR(flow_->RetryAfter(0), 50, 3);
  EXPECT_EQ(flow_->RetryAfter(1), 1);  // they do not stand before a higher band
}

TEST_F(FlowControllerTest, CancelsAmongTenThousandLeaveTheOrderAlone) {
  Start("{defaultPriorityBand: {maxRequests: 20k, fairnessPolicyRef: round-robin-fairness-policy}}",
        {"{type: round-robin-fairness-policy}"});
  std::vector<uint64_t> tickets;
  for (int i = 0; i < 10'000; ++i)
    tickets.push_back(Ask(std::to_string(i), 0, "flow" + std::to_string(i % 10)));
  std::mt19937 rng(5);
  std::vector<int> gone(10'000);
  for (int i = 0; i < 10'000; ++i) gone[i] = i;
  std::shuffle(gone.begin(), gone.end(), rng);
  gone.resize(5'000);
  for (int i : gone) flow_->Cancel(tickets[i]);
  EXPECT_EQ(Events().size(), 5'000u);
  EXPECT_EQ(flow_->size(), 5'000u);
  std::map<int, int> last;  // by flow
  std::set<std::string> seen;
  for (const std::string& name : Open(10'000)) {
    const int i = std::stoi(name);
    EXPECT_TRUE(seen.insert(name).second);
    const auto [it, fresh] = last.try_emplace(i % 10, i);
    EXPECT_TRUE(fresh || it->second < i) << "out of order in its flow";
    it->second = i;
  }
  EXPECT_EQ(seen.size(), 5'000u);
  for (int i : gone) EXPECT_FALSE(seen.contains(std::to_string(i)));
}

TEST_F(FlowControllerTest, IdleFlowsAndBandsAreCollected) {
  Start("{priorityBands: [{priority: 9}]}");
  Ask("a", 3, "x");
  Ask("b", 9, "y");
  Open(2);
  EXPECT_EQ(flow_->flow_count(), 2u);
  Pass(minutes(6));
  EXPECT_EQ(flow_->flow_count(), 2u) << "their requests are still in flight";
  End("a");
  End("b");
  Pass(minutes(4));
  EXPECT_EQ(flow_->flow_count(), 2u);
  Pass(minutes(2));
  EXPECT_EQ(flow_->flow_count(), 0u);
  EXPECT_EQ(flow_->band_count(), 2u);
  Pass(minutes(5));
  EXPECT_EQ(flow_->band_count(), 1u);  // the configured one stays
  Ask("c", 3, "x");
  EXPECT_THAT(Open(1), ElementsAre("c"));
}

TEST_F(FlowControllerTest, TheNumberOfFlowsAndBandsIsBounded) {
  Start("{defaultPriorityBand: {maxRequests: 100k}, defaultRequestTTL: 0s}");
  for (size_t i = 0; i < Band::kMaxFlows + 500; ++i) Ask("q", 0, "flow" + std::to_string(i));
  EXPECT_EQ(flow_->flow_count(), Band::kMaxFlows + 1);  // the rest shares one
  const size_t all = Band::kMaxFlows + 500;
  EXPECT_EQ(Open(all).size(), all);
  for (int p = 1; p < 1000; ++p) Ask("p", p, "f");
  EXPECT_EQ(flow_->band_count(), FlowController::kMaxBands);
}

TEST_F(FlowControllerTest, LongIdleFlowsMakeRoomForNewOnes) {
  Start("{}");
  room_ = 1'000'000;
  for (size_t i = 0; i < Band::kMaxFlows + 50; ++i) {
    const std::string name = std::to_string(i);
    Ask(name, 0, "flow" + name);
    End(name);
  }
  EXPECT_EQ(flow_->flow_count(), Band::kMaxFlows);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("fairness_id=\"other\""));  // labels are bounded too
}

TEST_F(FlowControllerTest, ShowsQueuesOutcomesAndSaturationByStage) {
  Start("{}");
  Ask("a", FlowRequest{
               .priority = 2, .flow = "tenant", .model = "m", .target_model = "t", .bytes = 700});
  std::string page = metrics_.Expose();
  const std::string labels =
      "{fairness_id=\"tenant\",inference_pool=\"pool\",model_name=\"m\",priority=\"2\","
      "target_model_name=\"t\"}";
  EXPECT_THAT(page, HasSubstr("llm_d_epp_flow_control_queue_size" + labels + " 1.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_flow_control_queue_bytes" + labels + " 700.0"));
  EXPECT_THAT(page, HasSubstr("request_enqueue_duration_seconds_count{fairness_id=\"tenant\","
                              "outcome=\"NotYetFinalized\",priority=\"2\"} 1.0"));
  for (const char* stage : {"decode", "effective"}) {
    EXPECT_THAT(page, HasSubstr("llm_d_epp_flow_control_pool_saturation{inference_pool=\"pool\","
                                "stage=\"" +
                                std::string(stage) + "\"} 1.0"));
  }
  EXPECT_THAT(page, HasSubstr("stage=\"prefill\"} 0.0"));
  clock_.Advance(milliseconds(30));
  Open(1);
  page = metrics_.Expose();
  EXPECT_THAT(page, HasSubstr("llm_d_epp_flow_control_queue_size" + labels + " 0.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_flow_control_requests_total{inference_pool=\"pool\","
                              "outcome=\"Dispatched\",priority=\"2\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_flow_control_request_queue_duration_seconds_bucket{"
                              "fairness_id=\"tenant\",inference_pool=\"pool\",le=\"0.025\","
                              "model_name=\"m\",outcome=\"Dispatched\",priority=\"2\",target_model_"
                              "name=\"t\"} 0.0"));
  EXPECT_THAT(page, HasSubstr("le=\"0.05\",model_name=\"m\",outcome=\"Dispatched\",priority=\"2\","
                              "target_model_name=\"t\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("flow_control_dispatch_cycle_duration_seconds_count 1.0"));
}

TEST_F(FlowControllerTest, ADispatchThatEndsAtOnceDoesNotRecurse) {
  Start("{defaultPriorityBand: {maxRequests: 200k}, defaultRequestTTL: 0s}");
  room_ = 1;
  int ended = 0;
  for (int i = 0; i < 100'000; ++i) {
    flow_->Enqueue({.resume = [&](const FlowResult& r) {
      ++ended;
      flow_->Complete(r.ticket, {});
    }});
  }
  in_flight_ = 0;
  flow_->Pump();
  EXPECT_EQ(ended, 100'000);
}

TEST_F(FlowControllerTest, DecisionsUnderWayCountWhenTheirShareIsKnown) {
  // The first dispatch is still being decided on when another thread looks.
  const auto dispatched_meanwhile = [&](double per_request) {
    Start("{}");
    per_request_ = per_request;
    saturation_ = 1;
    int dispatched = 0;
    bool first = true;
    for (int i = 0; i < 8; ++i) {
      flow_->Enqueue({.resume = [&](const FlowResult&) {
        ++dispatched;
        if (!std::exchange(first, false)) return;
        std::thread([&] { flow_->Pump(); }).join();
        saturation_ = 1;  // what is left must wait
      }});
    }
    saturation_ = 0;
    flow_->Pump();
    const int seen = dispatched;
    flow_->Stop();
    return seen;
  };
  EXPECT_EQ(dispatched_meanwhile(INFINITY), 1);  // one after another
  EXPECT_EQ(dispatched_meanwhile(0), 8);
}

TEST_F(FlowControllerTest, AHeldRequestCountsUntilItIsReleased) {
  Start("{}");
  saturation_ = 0;
  per_request_ = 0.5;
  std::vector<uint64_t> held;
  const auto ask = [&] {
    flow_->Enqueue({.resume = [&](const FlowResult& r) {
      flow_->Hold(r.ticket);
      held.push_back(r.ticket);
    }});
  };
  for (int i = 0; i < 4; ++i) ask();
  EXPECT_EQ(held.size(), 2u);
  flow_->Release(held[0]);
  EXPECT_EQ(held.size(), 3u);
  flow_->Release(held[0]);  // once only
  EXPECT_EQ(held.size(), 3u);
  flow_->Complete(held[1], {});
  EXPECT_EQ(held.size(), 4u);
}

TEST_F(FlowControllerTest, HeldRequestsOfUnknownShareCountAsTheMeanOfTheOthers) {
  Start("{}");
  saturation_ = 0;
  std::vector<uint64_t> held;
  const auto ask = [&] {
    flow_->Enqueue({.resume = [&](const FlowResult& r) {
      flow_->Hold(r.ticket);
      held.push_back(r.ticket);
    }});
  };
  for (int i = 0; i < 8; ++i) ask();
  EXPECT_EQ(held.size(), 1u) << "nothing to judge by: one at a time";
  saturation_ = 0.2;  // what the first one adds
  flow_->Release(held[0]);
  EXPECT_EQ(held.size(), 5u) << "four more of 0.2 each fill it";
  flow_->Stop();
}

TEST_F(FlowControllerTest, TheLongestTtlNeverExpires) {
  Start("{}");
  clock_.Advance(std::chrono::hours(1));
  Ask("a", FlowRequest{.ttl = Duration::max()});
  Pass(milliseconds(1));
  EXPECT_THAT(Events(), IsEmpty());
}

// Arrivals, ends, cancels, evictions and ticks from several threads: every request is answered
// once, and the counts come back to nothing.
TEST(FlowControllerThreads, EveryRequestIsAnsweredOnce) {
  constexpr int kThreads = 4, kEach = 400;
  FakeClock clock;
  MetricsRegistry metrics;
  std::atomic<int> in_flight{0}, answers{0}, dispatched{0}, most{0};
  FlowController flow(
      FlowGraph("{enableEviction: true, maxRequests: 100, defaultRequestTTL: 1s, "
                "defaultPriorityBand: {fairnessPolicyRef: virtual-token-counter-fairness-policy}}",
                {"{type: virtual-token-counter-fairness-policy}"}),
      clock, metrics, "pool",
      FlowHooks{
          .load =
              [&] {
                const double s = in_flight.load() / 8.0;
                return PoolLoad{
                    .prefill = 0, .decode = s, .effective = s, .per_request = 1 / 8.0, .stale = 0};
              },
          .empty = [] { return false; }});
  std::mutex mutex;
  std::vector<uint64_t> running;  // guarded by mutex
  const auto end = [&](uint64_t ticket) {
    {
      std::lock_guard lock(mutex);
      if (std::erase(running, ticket) == 0) return;
    }
    in_flight.fetch_sub(1);
    flow.Complete(ticket, {.prompt_tokens = 5, .output_tokens = 9, .known = true});
  };
  const auto resume = [&](const FlowResult& r) {
    answers.fetch_add(1);
    if (r.outcome != FlowOutcome::kDispatched) return;
    dispatched.fetch_add(1);
    most = std::max(most.load(), in_flight.fetch_add(1) + 1);
    {
      std::lock_guard lock(mutex);
      running.push_back(r.ticket);
    }
    flow.Revocable(r.ticket, [&, ticket = r.ticket] { end(ticket); });
  };
  const auto work = [&](int thread) {
    std::mt19937 rng(static_cast<unsigned>(thread));
    for (int i = 0; i < kEach; ++i) {
      const std::string id = "flow" + std::to_string(rng() % 5);
      const uint64_t ticket =
          flow.Enqueue({.priority = static_cast<int>(rng() % 3) - 1, .flow = id, .resume = resume});
      if (rng() % 8 == 0) flow.Cancel(ticket);
      if (rng() % 16 == 0) clock.Advance(milliseconds(20));
      if (rng() % 4 == 0) flow.Expire();
      uint64_t oldest = 0;
      {
        std::lock_guard lock(mutex);
        if (!running.empty()) oldest = running.front();
      }
      if (oldest != 0) end(oldest);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& t : threads) t.join();
  for (;;) {
    uint64_t oldest = 0;
    {
      std::lock_guard lock(mutex);
      if (!running.empty()) oldest = running.front();
    }
    if (oldest == 0) break;
    end(oldest);
  }
  flow.Stop();
  EXPECT_EQ(answers.load(), kThreads * kEach);
  EXPECT_GT(dispatched.load(), 0);
  EXPECT_EQ(in_flight.load(), 0);
  EXPECT_EQ(flow.size(), 0u);
  EXPECT_LE(most.load(), 8);
}

}  // namespace
}  // namespace llmd::sched
