// Flow control as a request meets it in the Director: headers, refusals, eviction.
#include <atomic>
#include <deque>
#include <thread>

#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";

// One endpoint that takes one request at a time.
class DirectorFlowTest : public DirectorFixture {
 protected:
  void Begin(const std::string& flow = "", std::vector<std::string> plugins = {}) {
    plugins.push_back("{type: concurrency-detector, parameters: {maxConcurrency: 1}}");
    Start(
        "{name: a, address: 127.0.0.1, port: 8001}]\nobjectives: [{name: batch, priority: -1}, "
        "{name: chat, priority: 5}",
        plugins,
        "schedulingProfiles: [{name: p}]\nfeatureGates: [flowControl]\nflowControl: "
        "{saturationDetector: {pluginRef: concurrency-detector}" +
            flow + "}\n");
  }
  struct Asked {
    HeaderList headers;
    std::shared_ptr<RequestState> state;
    std::atomic<int> answers{0};  // after `routing`
    Routing routing;
    std::vector<Denial> evictions;
  };
  void TearDown() override { director_->Stop(); }  // while its callbacks have where to write
  Asked* Ask(const std::string& objective, HeaderList more = {}) {
    Asked* const asked = &asked_.emplace_back();
    asked->headers = std::move(more);
    asked->headers.emplace_back(":path", "/v1/completions");
    if (!objective.empty()) asked->headers.emplace_back("x-llm-d-inference-objective", objective);
    RequestInput input;
    input.headers = &asked->headers;
    input.body = kBody;
    input.state = &asked->state;
    input.evicted = [asked](const Denial& d) { asked->evictions.push_back(d); };
    director_->Route(std::move(input), [asked](Routing r) {
      asked->routing = std::move(r);
      ++asked->answers;
    });
    return asked;
  }
  // The director's own thread may be the one that dispatches it.
  static void Answered(const Asked& asked) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (asked.answers == 0 && std::chrono::steady_clock::now() < limit)
      std::this_thread::yield();
    ASSERT_EQ(asked.answers, 1);
  }
  std::deque<Asked> asked_;
};

TEST_F(DirectorFlowTest, AQueuedRequestSaysHowLongAndWhyOnItsAnswer) {
  Begin();
  Asked *const first = Ask(""), *const second = Ask("");
  ASSERT_EQ(first->answers, 1);
  ASSERT_EQ(second->answers, 0);
  clock_.Advance(std::chrono::milliseconds(1234));
  director_->OnResponseHeaders(first->state, 200, {});
  director_->OnResponseBody(first->state, R"({"usage":{"prompt_tokens":1,"completion_tokens":2}})",
                            true, nullptr);
  Answered(*second);
  const HeaderList set = director_->OnResponseHeaders(second->state, 200, {});
  EXPECT_THAT(set, Contains(Pair("x-llm-d-queue-time-ms", "1234")));
  EXPECT_THAT(set, Contains(Pair("x-llm-d-queue-reason", "saturated")));
  director_->Cancel(second->state);
  Asked* const third = Ask("");
  EXPECT_THAT(director_->OnResponseHeaders(third->state, 200, {}),
              Not(Contains(Key("x-llm-d-queue-time-ms"))));
}

TEST_F(DirectorFlowTest, ACancelledOneSaysItToo) {
  Begin();
  Ask("");
  Asked* const second = Ask("");
  clock_.Advance(std::chrono::milliseconds(50));
  director_->Cancel(second->state);
  EXPECT_EQ(second->routing.denial.http_status, 503);
  EXPECT_THAT(
      second->routing.denial.headers,
      ElementsAre(Pair("x-llm-d-queue-time-ms", "50"), Pair("x-llm-d-queue-reason", "saturated")));
}

TEST_F(DirectorFlowTest, AFullQueueIs429WithRetryAfterByTheDrainRate) {
  Begin(", defaultPriorityBand: {maxRequests: 2}");
  for (int i = 0; i < 3; ++i) Ask("");
  Asked* const refused = Ask("");
  EXPECT_EQ(refused->routing.denial.http_status, 429);
  EXPECT_EQ(refused->routing.denial.dropped_reason, "rejected-saturated");
  // One dispatched within the first second, two waiting.
  EXPECT_EQ(refused->routing.denial.retry_after_s, 2);
}

TEST_F(DirectorFlowTest, ABadTtlHeaderIs400AndAGoodOneStaysHere) {
  Begin();
  for (const char* bad : {"5", "-1s", "0s", "soon"}) {
    Asked* const asked = Ask("", {{"x-llm-d-inference-ttl", bad}});
    EXPECT_EQ(asked->routing.denial.http_status, 400) << bad;
    EXPECT_THAT(asked->routing.denial.message, HasSubstr("x-llm-d-inference-ttl"));
  }
  Asked* const good = Ask("", {{"x-llm-d-inference-ttl", "1500ms"}});
  ASSERT_TRUE(good->routing.ok);
  EXPECT_THAT(good->routing.remove_headers, Contains("x-llm-d-inference-ttl"));
}

TEST_F(DirectorFlowTest, ASheddableRequestInFlightIsTakenBackForAHigherOne) {
  Begin(", enableEviction: true");
  Asked* const batch = Ask("batch");
  ASSERT_TRUE(batch->routing.ok);
  director_->OnResponseHeaders(batch->state, 200, {});
  Asked* const chat = Ask("chat");
  EXPECT_EQ(chat->answers, 0);
  ASSERT_EQ(batch->evictions.size(), 1u);
  EXPECT_EQ(batch->evictions[0].http_status, 429);
  EXPECT_EQ(batch->evictions[0].message, "request evicted by flow control");
  EXPECT_EQ(batch->evictions[0].dropped_reason, "evicted-priority");
  EXPECT_GE(batch->evictions[0].retry_after_s, 1);
  director_->Cancel(batch->state);  // as the transport does when the stream has ended
  Answered(*chat);
  EXPECT_TRUE(chat->routing.ok);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_flow_control_revocations_total{inference_"
                                           "pool=\"epp\",outcome=\"confirmed\"} 1.0"));
}

TEST_F(DirectorFlowTest, NothingIsTakenBackUnlessConfigured) {
  Begin();
  Asked *const batch = Ask("batch"), *const chat = Ask("chat");
  EXPECT_THAT(batch->evictions, IsEmpty());
  EXPECT_EQ(chat->answers, 0);
}

TEST_F(DirectorFlowTest, AQueuedSheddableRequestGivesItsPlaceInAFullQueue) {
  Begin(", enableEviction: true, maxRequests: 1");
  Asked *const running = Ask("chat"), *const waiting = Ask("batch"), *const chat = Ask("chat");
  ASSERT_EQ(waiting->answers, 1);
  EXPECT_EQ(waiting->routing.denial.http_status, 429);
  EXPECT_EQ(waiting->routing.denial.dropped_reason, "evicted-queue-pressure");
  EXPECT_EQ(chat->answers, 0);
  director_->Cancel(running->state);
  Answered(*chat);
  EXPECT_TRUE(chat->routing.ok);
}

TEST_F(DirectorFlowTest, ARefusalAfterTheQueueFreesItsPlace) {
  Begin();
  for (int i = 0; i < 3; ++i) {
    const Routing r = Route(kBody, {{"prefer", "if-available"}});
    EXPECT_EQ(r.denial.http_status, 412);
  }
  EXPECT_TRUE(Ask("")->routing.ok);
}

TEST_F(DirectorFlowTest, WhomNobodyMayServeDoesNotQueue) {
  Begin();
  const Asked* const running = Ask("");
  ASSERT_TRUE(running->routing.ok);
  for (const bool by_handle : {false, true}) {
    Asked& asked = asked_.emplace_back();
    asked.headers = {{":path", "/v1/completions"}};
    RequestInput input;
    input.headers = &asked.headers;
    input.body = kBody;
    input.has_subset = !by_handle;
    if (by_handle) input.exclude = running->routing.handles;
    director_->Route(std::move(input), [&](Routing r) {
      asked.routing = std::move(r);
      ++asked.answers;
    });
    ASSERT_EQ(asked.answers, 1) << "it waits";
    EXPECT_EQ(asked.routing.denial.http_status, 503);
    EXPECT_EQ(asked.routing.denial.dropped_reason, "rejected-no-endpoints");
  }
}

TEST_F(DirectorFlowTest, ARetryHasTheDeadlineOfTheFirstTry) {
  options_.manual = true;
  Begin(", defaultRequestTTL: 10s");
  director_->SetEndpoints({Ep("a").info});
  clock_.Advance(std::chrono::seconds(100));
  ASSERT_TRUE(Ask("")->routing.ok);  // it goes on
  const TimePoint first = clock_.Now();
  clock_.Advance(std::chrono::seconds(6));
  Asked& again = asked_.emplace_back();
  again.headers = {{":path", "/v1/completions"}};
  RequestInput input;
  input.headers = &again.headers;
  input.body = kBody;
  input.first_received = first;
  director_->Route(std::move(input), [&](Routing r) {
    again.routing = std::move(r);
    ++again.answers;
  });
  clock_.Advance(std::chrono::milliseconds(3999));
  director_->Tick(clock_.Now());
  EXPECT_EQ(again.answers, 0);
  clock_.Advance(std::chrono::milliseconds(1));
  director_->Tick(clock_.Now());
  ASSERT_EQ(again.answers, 1);
  EXPECT_EQ(again.routing.denial.dropped_reason, "rejected-ttl-expired");
}

TEST_F(DirectorFlowTest, ARefusalAfterTheQueueIsNotChargedToItsFlow) {
  Begin(", defaultPriorityBand: {fairnessPolicyRef: virtual-token-counter-fairness-policy}",
        {"{type: virtual-token-counter-fairness-policy}"});
  Asked* const running = Ask("", {{"x-llm-d-inference-fairness-id", "other"}});
  ASSERT_TRUE(running->routing.ok);
  const Answers answers;
  std::deque<HeaderList> headers;  // held: the requests wait
  const auto ask = [&](const std::string& name, const char* flow, bool refused) {
    headers.push_back({{":path", "/v1/completions"}, {"x-llm-d-inference-fairness-id", flow}});
    RequestInput input;
    input.headers = &headers.back();
    input.body = kBody;
    input.has_subset = refused;
    director_->Route(std::move(input), answers.To(name));
  };
  ask("a1", "a", true);
  ask("a2", "a", false);
  ask("b1", "b", false);
  director_->Cancel(running->state);
  ASSERT_THAT(answers.Names(2), ElementsAre("a1", "a2"));
  EXPECT_FALSE(answers.At(0).ok);
  EXPECT_TRUE(answers.At(1).ok);
  director_->Stop();  // while b1's headers are there
}

TEST_F(DirectorFlowTest, AStateDroppedWhileQueuedOrInFlightLeavesNothingBehind) {
  Begin(", enableEviction: true");
  Asked* const batch = Ask("batch");
  Answered(*batch);
  ASSERT_TRUE(batch->routing.ok);
  batch->routing = {};
  batch->state.reset();
  Asked* const next = Ask("");
  Answered(*next);
  EXPECT_TRUE(next->routing.ok);
}

}  // namespace
}  // namespace llmd::sched
