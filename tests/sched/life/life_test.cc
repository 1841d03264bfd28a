// A request's life at its edges: cancelled, dropped and followed by others from within callbacks.
#include "sched/life/life_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class LifeTest : public LifeFixture {};

TEST_F(LifeTest, ACallbackThatDropsAQueuedRequestDoesNotDeadlock) {
  Begin(", enableEviction: true");
  Asked* const first = Ask("");
  const auto drop = [](Asked& a) {
    a.state.reset();
    a.routing = {};
  };
  Asked* const second = Ask("", {}, drop);
  Asked* const third = Ask("");
  ASSERT_EQ(second->answers, 0);
  Returns([&] { director_->Cancel(first->state); });
  Answered(*second);
  Answered(*third);  // the dropped one left its place
}

TEST_F(LifeTest, ACallbackMayCancelItsOwnRequest) {
  Begin();
  Asked* const first = Ask("");
  Asked* const second = Ask("", {}, [this](Asked& a) { director_->Cancel(a.routing.state); });
  Asked* const third = Ask("");
  Returns([&] { director_->Cancel(first->state); });
  Answered(*second);
  Answered(*third);
}

TEST_F(LifeTest, WhatACallbackThrowsGoesNoFurther) {
  for (const bool drop : {false, true}) {  // a destructor tells it, too
    Begin();
    Asked* const first = Ask("");
    const auto rash = [](Asked&) { throw std::runtime_error("mine"); };
    Asked* const second = Ask("", {}, rash);
    Asked* const third = Ask("");
    Returns([&] {
      if (!drop) return director_->Cancel(first->state);
      first->state.reset();
      first->routing = {};
    });
    Answered(*second);
    director_->Cancel(second->state);
    Answered(*third);
    EXPECT_TRUE(third->routing.ok);
    EXPECT_THAT(Messages(), Contains("A request's callback threw"));
    End();
    registry_ = std::make_unique<MetricsRegistry>();
  }
}

TEST_F(LifeTest, WhatAnEvictionThrowsGoesNoFurther) {
  Begin(", enableEviction: true");
  RequestInput input;
  HeaderList headers = {{":path", "/v1/completions"}, {"x-llm-d-inference-objective", "batch"}};
  std::shared_ptr<RequestState> state;
  input.headers = &headers;
  input.body = kBody;
  input.state = &state;
  int evicted = 0;
  input.evicted = [&](const Denial&) {
    ++evicted;
    throw 7;
  };
  director_->Route(std::move(input), [](const Routing& r) { EXPECT_TRUE(r.ok); });
  Asked* const chat = Ask("chat");
  EXPECT_EQ(evicted, 1);
  EXPECT_THAT(Messages(), Contains("A request's callback threw"));
  director_->Cancel(state);
  Answered(*chat);
  EXPECT_TRUE(chat->routing.ok);
}

TEST_F(LifeTest, TwoThreadsMayStopIt) {
  for (int i = 0; i < 100; ++i) {
    Begin();
    Asked* const first = Ask("");
    Asked* const second = Ask("");
    Returns([&] {
      std::thread other([&] { director_->Stop(); });
      director_->Stop();
      EXPECT_EQ(second->answers, 1) << "whoever stops it, all are told when Stop returns";
      other.join();
    });
    EXPECT_EQ(first->answers, 1);
    End();
    registry_ = std::make_unique<MetricsRegistry>();
  }
}

TEST_F(LifeTest, ACallbackMayCancelTheOthersThatWait) {
  Begin();
  Asked* const first = Ask("");
  std::vector<Asked*> others;
  Asked* const second = Ask("", {}, [&](Asked&) {
    for (Asked* a : others) director_->Cancel(a->state);
  });
  for (int i = 0; i < 3; ++i) others.push_back(Ask(""));
  Returns([&] { director_->Cancel(first->state); });
  EXPECT_TRUE(second->routing.ok);
  for (Asked* a : others) {
    EXPECT_EQ(a->answers, 1);
    EXPECT_EQ(a->routing.denial.dropped_reason, "rejected-context-cancelled");
  }
}

TEST_F(LifeTest, ACallbackMayRouteAHigherOneThatTakesItBack) {
  Begin(", enableEviction: true");
  Asked* chat = nullptr;
  Asked* const batch = Ask("batch", {}, [&](Asked&) { chat = Ask("chat"); });
  ASSERT_THAT(batch->evictions, SizeIs(1));
  EXPECT_EQ(batch->evictions[0].http_status, 429);
  EXPECT_EQ(batch->evictions[0].dropped_reason, "evicted-priority");
  EXPECT_EQ(chat->answers, 0);
  director_->Cancel(batch->state);
  EXPECT_TRUE(chat->routing.ok);
}

TEST_F(LifeTest, AnEvictionMayCancelAtOnce) {
  Begin(", enableEviction: true");
  Asked* const batch = Ask("batch");
  Asked* chat = nullptr;
  director_->Cancel(batch->state);
  RequestInput input;
  HeaderList headers = {{":path", "/v1/completions"}, {"x-llm-d-inference-objective", "batch"}};
  std::shared_ptr<RequestState> state;
  input.headers = &headers;
  input.body = kBody;
  input.state = &state;
  int evicted = 0;
  input.evicted = [&](const Denial&) {
    ++evicted;
    director_->Cancel(state);
  };
  director_->Route(std::move(input), [](const Routing& r) { EXPECT_TRUE(r.ok); });
  Returns([&] { chat = Ask("chat"); });
  EXPECT_EQ(evicted, 1);
  EXPECT_EQ(chat->answers, 1);
  EXPECT_TRUE(chat->routing.ok);
}

TEST_F(LifeTest, CancelledWhileItsProducersRunItIsRefusedAndFreesItsPlace) {
  Begin("", {"{type: held-producer}"});
  Asked* const first = Ask("");
  Asked* const second = Ask("");
  ASSERT_EQ(held_->size(), 1u);
  director_->Cancel(first->state);
  held_->Answer();
  ASSERT_EQ(first->answers, 1);
  EXPECT_FALSE(first->routing.ok);
  EXPECT_EQ(first->routing.denial.dropped_reason, "rejected-context-cancelled");
  ASSERT_EQ(held_->size(), 1u) << "the second has the place";
  held_->Answer();
  EXPECT_TRUE(second->routing.ok);
}

// It is refused as others are: counted, kept for Explain and logged.
TEST_F(LifeTest, OneWhoseProducersWaitIsRefusedByStop) {
  Begin("", {"{type: held-producer}"});
  Asked* const asked = Ask("", {{"x-request-id", "late"}});
  director_->Stop();
  ASSERT_EQ(asked->answers, 1);
  EXPECT_EQ(asked->routing.denial.http_status, 503);
  EXPECT_EQ(asked->routing.denial.dropped_reason, "rejected-shutting-down");
  EXPECT_NE(asked->routing.state, nullptr);
  EXPECT_TRUE(director_->Explain("late").ok());
  EXPECT_THAT(registry_->Expose(), HasSubstr("llm_d_epp_request_error_total{error_code=\"503\""));
  EXPECT_THAT(Messages("late"), Contains("Request refused"));
  ASSERT_TRUE(held_->Answer());
  EXPECT_EQ(asked->answers, 1) << "the late answer finds nothing";
}

TEST_F(LifeTest, ProducersThatOutliveTheDirectorFindNothing) {
  Begin("", {"{type: held-producer}"});
  Routing routing;
  HeaderList headers = {{":path", "/v1/completions"}};
  RequestInput input;
  input.headers = &headers;
  input.body = kBody;
  int answers = 0;
  director_->Route(std::move(input), [&](Routing r) {
    ++answers;
    routing = std::move(r);
  });
  director_.reset();
  EXPECT_EQ(answers, 1);
  ASSERT_TRUE(held_->Answer());
  EXPECT_EQ(answers, 1);
  EXPECT_EQ(routing.denial.dropped_reason, "rejected-shutting-down");
}

// The producer lets go of its call without an answer.
TEST_F(LifeTest, ACallThatAProducerDropsIsAFailureOfIt) {
  Begin("", {"{type: held-producer}"});
  Asked* const first = Ask("", {{"x-request-id", "dropped"}});
  EXPECT_EQ(first->answers, 0);
  ASSERT_TRUE(held_->Drop());
  ASSERT_EQ(first->answers, 1);
  EXPECT_TRUE(first->routing.ok) << "it goes on without what the producer knows";
  held_->keep = false;  // in the call itself
  director_->Cancel(first->state);
  Asked* const second = Ask("");
  Answered(*second);
  EXPECT_TRUE(second->routing.ok);
}

// By the time the producer throws the request is another's to work on.
TEST_F(LifeTest, AProducerThatThrowsAfterItsAnswerTouchesTheRequestNoMore) {
  Begin("", {"{type: rash-producer}"});
  Asked* const asked = Ask("", {{"x-request-id", "first"}});
  EXPECT_EQ(asked->answers, 1);
  EXPECT_TRUE(asked->routing.ok);
  int said = 0;
  for (const json::Value& line : sink_->Lines()) {
    if (line["msg"].AsString() != "Plugin failed") continue;
    ++said;
    EXPECT_EQ(line["x-request-id"].AsString(), "") << "the failure is told, without the request";
  }
  EXPECT_EQ(said, 1);
}

TEST_F(LifeTest, SlowProducersHoldTheirPlace) {
  Begin("", {"{type: held-producer}"});
  std::vector<Asked*> all;
  for (int i = 0; i < 10; ++i) all.push_back(Ask(""));
  const auto routed = [&] {
    return std::count_if(all.begin(), all.end(), [](Asked* a) { return a->answers == 1; });
  };
  EXPECT_EQ(held_->size(), 1u);
  while (held_->Answer()) {
  }
  EXPECT_EQ(routed(), 1);
  for (Asked* a : all) {
    ASSERT_EQ(a->answers, 1);
    director_->Cancel(a->state);
    EXPECT_LE(held_->size(), 1u);
    while (held_->Answer()) {
    }
  }
  EXPECT_EQ(routed(), 10);
}

TEST_F(LifeTest, AnEndpointThatLeftWhileAProducerRanIsNotRoutedTo) {
  Begin("", {"{type: held-producer}"}, {"a", "b"});
  for (int i = 0; i < 8; ++i) {
    members_->Set({"a", "b"});
    Asked* const asked = Ask("");
    members_->Set({"b", "c"});
    held_->Answer();
    ASSERT_TRUE(asked->routing.ok);
    EXPECT_EQ(asked->routing.endpoints[0], "127.0.0.1:8002");
    director_->Cancel(asked->state);
  }
}

TEST_F(LifeTest, WhenAllLeftWhileAProducerRanItLooksAgainOnce) {
  Begin("", {"{type: held-producer}"}, {"a"});
  Asked* const asked = Ask("");
  members_->Set({"c"});
  held_->Answer();
  EXPECT_EQ(asked->answers, 0);
  ASSERT_EQ(held_->size(), 1u);
  held_->Answer();
  ASSERT_TRUE(asked->routing.ok);
  EXPECT_THAT(asked->routing.endpoints, ElementsAre("127.0.0.1:8003"));

  director_->Cancel(asked->state);
  Asked* const unlucky = Ask("");
  members_->Set({"a"});
  held_->Answer();
  members_->Set({"c"});
  held_->Answer();
  ASSERT_EQ(unlucky->answers, 1);
  EXPECT_EQ(unlucky->routing.denial.http_status, 503);
}

// Each is decided on and recorded as its own.
TEST_F(LifeTest, AHookMayRouteAnotherWhileItsRequestIsRouted) {
  members_->Set({"a"});
  Create(Ungated(Yaml({"{type: concurrency-detector}"}, "")));
  Asked* nested = nullptr;
  bool again = false;
  calls_->pre_request = [&] {
    if (std::exchange(again, true)) return;
    members_->Set({"b", "c"});
    nested = Ask("", {{"x-request-id", "nested"}});
  };
  const Asked* const outer = Ask("", {{"x-request-id", "outer"}});
  ASSERT_TRUE(outer->routing.ok);
  ASSERT_NE(nested, nullptr);
  ASSERT_TRUE(nested->routing.ok);
  EXPECT_THAT(outer->routing.endpoints, ElementsAre("127.0.0.1:8001"));
  const DecisionTrace& trace = *outer->routing.trace;
  EXPECT_EQ(trace.request_id, "outer");
  EXPECT_THAT(trace.endpoints, ElementsAre("default/a"));
  EXPECT_EQ(trace.primary, 0);
  EXPECT_EQ(nested->routing.trace->request_id, "nested");
  EXPECT_THAT(nested->routing.trace->endpoints, SizeIs(2));
}

TEST_F(LifeTest, AReloadOrStopDispatchesToACallbackThatReloads) {
  for (const bool stop : {false, true}) {
    Begin();
    const std::string open = Ungated(options_.config_yaml);
    Status refused;
    Ask("");
    Asked* const second = Ask("", {}, [&](Asked&) { refused = director_->Reload(open); });
    ASSERT_EQ(second->answers, 0);
    Returns([&] {
      if (stop) return director_->Stop();
      const Status reloaded = director_->Reload(open);
      EXPECT_TRUE(reloaded.ok()) << reloaded.ToString();
    });
    EXPECT_EQ(second->answers, 1);
    EXPECT_EQ(second->routing.ok, !stop);
    EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
    End();
    registry_ = std::make_unique<MetricsRegistry>();
  }
}

TEST_F(LifeTest, StopWithinACallbackIsIgnoredAndSaysSo) {
  Begin("", {"{type: held-producer}"});
  // On the thread of a producer's answer.
  Asked* const first = Ask("", {}, [this](Asked&) { director_->Stop(); });
  Returns([&] { held_->Answer(); });
  EXPECT_TRUE(first->routing.ok);
  // On the director's own thread.
  std::promise<void> told;
  Ask("", {{"x-llm-d-inference-ttl", "1ms"}}, [&](Asked&) {
    director_->Stop();
    told.set_value();
  });
  clock_.Advance(milliseconds(2));
  Returns([&] { told.get_future().wait(); });
  int said = 0;
  for (const std::string& line : Messages()) said += line.starts_with("Stop is ignored");
  EXPECT_EQ(said, 2);
  director_->Cancel(first->state);
  Asked* const next = Ask("");
  held_->Answer();
  EXPECT_TRUE(next->routing.ok) << "it goes on";
}

// The caller's variable is the last that holds the request.
TEST_F(LifeTest, AHookMayLetGoOfTheRequestItIsShown) {
  Begin();
  for (int call = 0; call < 5; ++call) {
    Routing routing = std::exchange(Ask("")->routing, {});
    ASSERT_TRUE(routing.ok) << call;
    asked_.clear();
    std::shared_ptr<RequestState> state = std::exchange(routing.state, nullptr);
    const std::weak_ptr<RequestState> gone = state;
    int seen = 0, ends = 0;
    const auto drop = [&] {
      ++seen;
      state.reset();
    };
    calls_->headers = call == 0 ? drop : std::function<void()>();
    calls_->first_chunk = call == 1 || call == 2 ? drop : std::function<void()>();
    calls_->end = [&] {
      ++ends;
      if (call >= 3) drop();
    };
    std::string none;
    if (call == 0) director_->OnResponseHeaders(state, 200, {});
    if (call == 1) director_->OnResponseBody(state, "x", false, &none);
    if (call == 2) director_->OnResponseBodySkipped(state);
    if (call == 3) director_->OnResponseBody(state, "x", true, &none);
    if (call == 4) director_->Cancel(state);
    EXPECT_EQ(seen, 1) << call;
    EXPECT_EQ(ends, 1) << call << ": nobody held it any more";
    EXPECT_TRUE(gone.expired()) << call;
    *calls_ = {};
  }
}

// Cancelled by another thread as soon as its state is there.
TEST_F(LifeTest, ACancelWhileRouteRunsIsNotLost) {
  Begin();
  Asked* const first = Ask("");
  for (int i = 0; i < 300; ++i) {
    std::shared_ptr<RequestState> state;
    std::atomic<bool> go{false};
    HeaderList headers = {{":path", "/v1/completions"}};
    std::promise<Routing> answer;
    RequestInput input;
    input.headers = &headers;
    input.body = kBody;
    input.state = &state;
    std::thread other([&] {
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      director_->Cancel(state);
    });
    *on_headers_ = [&] { go.store(true, std::memory_order_release); };
    director_->Route(std::move(input), [&](Routing r) { answer.set_value(std::move(r)); });
    *on_headers_ = nullptr;
    std::future<Routing> routed = answer.get_future();
    other.join();
    ASSERT_EQ(routed.wait_for(std::chrono::seconds(2)), std::future_status::ready) << i;
    EXPECT_FALSE(routed.get().ok);
  }
  director_->Cancel(first->state);
  EXPECT_TRUE(Ask("")->routing.ok);
}

TEST_F(LifeTest, ALaxDeadlineIsNeverBeforeATightOne) {
  for (const char* lax : {"9.2e12", "9.223372036854e12", "1e300", "inf"}) {
    Begin(", defaultPriorityBand: {orderingPolicyRef: slo-deadline-ordering-policy}",
          {"{type: slo-deadline-ordering-policy}"});
    std::vector<std::string> order;
    Asked* const first = Ask("");
    Ask("", {{"x-llm-d-slo-ttft-ms", lax}}, [&](Asked&) { order.push_back("lax"); });
    Ask("", {{"x-llm-d-slo-ttft-ms", "5000"}}, [&](Asked&) { order.push_back("tight"); });
    director_->Cancel(first->state);
    EXPECT_THAT(order, ElementsAre("tight")) << lax;
    End();
    registry_ = std::make_unique<MetricsRegistry>();
  }
}

TEST_F(LifeTest, TheLongestTtlThereIsDoesNotExpireAtOnce) {
  Begin();
  clock_.Advance(std::chrono::hours(1));
  Ask("");
  Asked* const second = Ask("", {{"x-llm-d-inference-ttl", "2562047h47m16.854775807s"}});
  std::promise<void> told;
  Ask("", {{"x-llm-d-inference-ttl", "1ms"}}, [&](Asked&) { told.set_value(); });
  clock_.Advance(milliseconds(2));
  told.get_future().wait();
  EXPECT_EQ(second->answers, 0) << second->routing.denial.message;
}

// After the queue was empty the maintenance sleeps long; it must not oversleep a newcomer's end.
TEST_F(LifeTest, ATtlThatEndsIsSeenSoonThoughTheQueueWasEmpty) {
  Begin();
  Ask("");
  for (int i = 0; i < 3; ++i) {
    std::promise<void> told;
    const auto start = std::chrono::steady_clock::now();
    Ask("", {{"x-llm-d-inference-ttl", "1ms"}}, [&](Asked&) { told.set_value(); });
    clock_.Advance(milliseconds(2));
    told.get_future().wait();
    EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(500)) << i;
  }
}

}  // namespace
}  // namespace llmd::sched
