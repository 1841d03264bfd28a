// A Director without threads, driven by a clock that only the test moves.
#include <ctime>
#include <queue>
#include <random>

#include "sched/life/life_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;

class VirtualTime : public LifeFixture {
 protected:
  // `chosen` = the plugins of the profile.
  void Drive(const std::string& flow, std::vector<std::string> plugins, const std::string& detector,
             const std::string& chosen = "") {
    options_.manual = true;
    options_.attach_trace = false;
    options_.seed = 3;
    plugins.push_back(detector);
    const std::string type = detector.substr(7, detector.find_first_of(",}") - 7);
    options_.config_yaml = Config(plugins) + "dataLayer: " + data_layer_ +
                           "\nfeatureGates: [flowControl]\n"
                           "schedulingProfiles: [{name: p, plugins: [" +
                           chosen + "]}]\nflowControl: {saturationDetector: {pluginRef: " + type +
                           "}" + flow + "}\n";
    auto made =
        Director::Create(options_, fetch_, Logger(sink_, LogLevel::kError), *registry_, clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  static std::vector<EndpointInfo> Members(size_t n) {
    std::vector<EndpointInfo> all(n);
    for (size_t i = 0; i < n; ++i) {
      all[i].name = "e" + std::to_string(i);
      all[i].address = "10.0.0.1";
      all[i].port = static_cast<uint16_t>(1000 + i);
    }
    return all;
  }
  std::string data_layer_ = "{injectDefaults: false}";  // without sources metrics never age
  // Moves the clock to each time that is due, up to that one.
  void Until(TimePoint end) {
    for (TimePoint due = director_->Tick(clock_.Now()); due <= end;
         due = director_->Tick(clock_.Now())) {
      clock_.Advance(due - clock_.Now());
    }
    clock_.Advance(end - clock_.Now());
    director_->Tick(clock_.Now());
  }
};

constexpr char kOneAtATime[] = "{type: concurrency-detector, parameters: {maxConcurrency: 1}}";

TEST_F(VirtualTime, TtlsExpireToTheTick) {
  Drive("", {}, kOneAtATime);
  ASSERT_TRUE(director_->SetEndpoints(Members(1)).ok());
  Ask("");
  std::vector<Duration> waits;
  const TimePoint start = clock_.Now();
  for (const char* ttl : {"1234567us", "17ms", "3s"}) {
    Ask("", {{"x-llm-d-inference-ttl", ttl}}, [&](Asked& a) {
      EXPECT_EQ(a.routing.denial.dropped_reason, "rejected-ttl-expired");
      waits.push_back(clock_.Now() - start);
    });
  }
  EXPECT_EQ(director_->Tick(clock_.Now()), start + milliseconds(17));
  Until(start + seconds(10));
  EXPECT_THAT(waits, ElementsAre(milliseconds(17), std::chrono::microseconds(1234567), seconds(3)));
}

TEST_F(VirtualTime, MetricsGivenByHandOpenTheGateAndGrowStale) {
  Drive("", {}, "{type: utilization-detector, parameters: {staleMaxConcurrency: 1}}");
  ASSERT_TRUE(director_->SetEndpoints(Members(1)).ok());
  EndpointMetrics full;
  full.waiting = 50;
  ASSERT_TRUE(director_->SetMetrics("default/e0", full).ok());
  EXPECT_FALSE(director_->SetMetrics("default/e1", full).ok());
  Asked* const asked = Ask("");
  EXPECT_EQ(asked->answers, 0);
  clock_.Advance(milliseconds(10));
  ASSERT_TRUE(director_->SetMetrics("default/e0", EndpointMetrics()).ok());
  director_->Tick(clock_.Now());
  EXPECT_TRUE(asked->routing.ok);
  ASSERT_TRUE(director_->SetMetrics("default/e0", full).ok());
  const TimePoint told = clock_.Now();
  Asked* const second = Ask("");
  director_->Cancel(asked->state);
  EXPECT_EQ(second->answers, 0);
  Until(told + milliseconds(200));
  EXPECT_EQ(second->answers, 0) << "they count for so long";
  EXPECT_EQ(director_->Tick(clock_.Now()), told + milliseconds(200) + Duration(1));
  Until(told + milliseconds(200) + Duration(1));
  EXPECT_TRUE(second->routing.ok) << "nothing of ours is on its way";
}

// With two bands a saturation of 19/20 lets the lower one through in every 19th decision.
TEST_F(VirtualTime, ACeilingThatOpensNowAndThenIsAskedAgain) {
  Drive(
      ", usageLimitPolicyPluginRef: soft-reflective-ceiling-policy, priorityBands: [{priority: 1}, "
      "{priority: 0}]",
      {"{type: soft-reflective-ceiling-policy}"},
      "{type: concurrency-detector, parameters: {maxConcurrency: 20}}");
  ASSERT_TRUE(director_->SetEndpoints(Members(1)).ok());
  const TimePoint start = clock_.Now();
  std::vector<Asked*> first;
  for (int i = 0; i < 20; ++i) first.push_back(Ask(""));
  Until(start + milliseconds(300));
  for (const Asked* asked : first) EXPECT_TRUE(asked->routing.ok);
}

// It never answers, nor does it end what waits by itself.
TEST_F(VirtualTime, AProducerMayTakeItsTimeAndNoMore) {
  options_.registry = Registry();
  Drive("", {"{type: held-producer}"}, kOneAtATime);
  ASSERT_TRUE(director_->SetEndpoints(Members(1)).ok());
  const TimePoint start = clock_.Now();
  std::vector<Duration> ends;
  const auto note = [&](Asked&) { ends.push_back(clock_.Now() - start); };
  Asked* const lost = Ask("", {}, note);
  Asked* const next = Ask("", {}, note);
  director_->Cancel(lost->state);
  EXPECT_EQ(lost->answers, 0) << "the producer has its data";
  Until(start + milliseconds(399));
  EXPECT_EQ(lost->answers, 0);
  Until(start + milliseconds(400));
  ASSERT_EQ(lost->answers, 1);
  EXPECT_EQ(lost->routing.denial.http_status, 503);
  EXPECT_EQ(lost->routing.denial.message, "the producer 'held-producer' did not answer in time");
  ASSERT_EQ(held_->size(), 2u) << "the place is the next one's";
  ASSERT_TRUE(held_->Answer());
  EXPECT_EQ(lost->answers, 1) << "too late";
  ASSERT_TRUE(held_->Answer());
  EXPECT_TRUE(next->routing.ok);
  Asked* const last = Ask("", {}, note);
  director_->Cancel(next->state);
  Until(start + seconds(10));
  EXPECT_EQ(last->answers, 1);
  EXPECT_THAT(ends, ElementsAre(milliseconds(400), milliseconds(400), milliseconds(800)));
  EXPECT_TRUE(held_->Answer());  // what a producer never lets go of keeps the producer
}

TEST_F(VirtualTime, ABurstEndsWithItsWindow) {
  Drive("",
        {"{type: burst-prefix-cache-producer, parameters: {windowDurationMs: 1}}",
         "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: "
         "burst-prefix-cache-producer}}"},
        "{type: concurrency-detector, parameters: {maxConcurrency: 9}}",
        "{pluginRef: prefix-cache-scorer}");
  ASSERT_TRUE(director_->SetEndpoints(Members(2)).ok());
  const TimePoint start = clock_.Now();
  Asked* const asked = Ask("");
  ASSERT_EQ(asked->answers, 0);
  EXPECT_EQ(director_->Tick(start), start + milliseconds(1));
  Until(start + milliseconds(1));
  EXPECT_TRUE(asked->routing.ok);
}

// What the store knew of the members that left must not ask for steps of a nanosecond.
TEST_F(VirtualTime, AnEmptyPoolIsNotAskedForByMetricsThatLeft) {
  data_layer_ = "{}";
  Drive("", {}, "{type: utilization-detector, parameters: {metricsStalenessThreshold: 2s}}");
  ASSERT_TRUE(director_->SetEndpoints(Members(1)).ok());
  EndpointMetrics full;
  full.waiting = 50;
  full.kv_usage = 0;
  ASSERT_TRUE(director_->SetMetrics("default/e0", full).ok());
  Asked* const asked = Ask("");
  clock_.Advance(milliseconds(1500));
  director_->Tick(clock_.Now());
  ASSERT_EQ(asked->answers, 0);
  clock_.Advance(milliseconds(100));
  ASSERT_TRUE(director_->SetEndpoints({}).ok());
  int ticks = 0;
  TimePoint due = director_->Tick(clock_.Now());
  for (; due != TimePoint::max() && asked->answers == 0 && ticks < 1000; ++ticks) {
    clock_.Advance(due - clock_.Now());
    due = director_->Tick(clock_.Now());
  }
  EXPECT_EQ(asked->routing.denial.dropped_reason, "rejected-no-endpoints");
  EXPECT_LE(ticks, 100);
}

TEST_F(VirtualTime, TheSameSeedGivesTheSameIdsAndDecisions) {
  std::vector<std::string> runs[2];
  for (std::vector<std::string>& run : runs) {
    registry_ = std::make_unique<MetricsRegistry>();
    Drive("", {"{type: random-picker}"},
          "{type: concurrency-detector, parameters: {maxConcurrency: 9}}",
          "{pluginRef: random-picker}");
    ASSERT_TRUE(director_->SetEndpoints(Members(8)).ok());
    for (int i = 0; i < 20; ++i) {
      Asked* const a = Ask("");
      run.push_back(a->routing.request_id + " " + a->routing.endpoints.at(0) + " " +
                    std::string(FindHeader(a->routing.set_headers, "traceparent")));
      director_->Cancel(a->state);
    }
    End();
  }
  EXPECT_EQ(runs[0], runs[1]);
}

// 100,000 requests of five flows over 100 endpoints within an hour, more than there is room for
// now and then. The gauges come so seldom that they grow stale and fresh again. What does not get
// its turn is refused at the very instant its TTL ends. scripts/bench.sh sched shows the time.
TEST_F(VirtualTime, AnHourOfAHundredEndpointsTakesSeconds) {
  data_layer_ = "{}";
  Drive(
      ", defaultRequestTTL: 3s, defaultPriorityBand: {fairnessPolicyRef: "
      "round-robin-fairness-policy}",
      {"{type: queue-scorer}", "{type: prefix-cache-scorer}",
       "{type: round-robin-fairness-policy}"},
      "{type: concurrency-detector, parameters: {maxConcurrency: 2}}");
  ASSERT_TRUE(director_->SetEndpoints(Members(100)).ok());
  const std::clock_t real = std::clock();
  const TimePoint start = clock_.Now();
  std::mt19937 rng(1);
  struct Event {
    TimePoint at;
    std::shared_ptr<RequestState> ends;
    bool operator<(const Event& o) const { return at > o.at; }
  };
  std::priority_queue<Event> ends;
  int64_t routed = 0, refused = 0, asked = 0, late = 0;
  const std::string body = R"({"model":"m","prompt":"hello"})";
  const std::string flows[] = {"a", "b", "c", "d", "e"};
  std::vector<HeaderList> headers;
  for (const std::string& flow : flows)
    headers.push_back({{":path", "/v1/completions"}, {"x-llm-d-inference-fairness-id", flow}});
  TimePoint metrics_at = start;
  for (TimePoint next = start; next < start + std::chrono::hours(1);) {
    // Bursts: twice the room for a while, then calm.
    TimePoint due = std::min(next, director_->Tick(clock_.Now()));
    if (!ends.empty()) due = std::min(due, ends.top().at);
    due = std::min(due, metrics_at);
    clock_.Advance(std::max(due - clock_.Now(), Duration::zero()));
    if (clock_.Now() >= metrics_at) {
      EndpointMetrics m;
      m.running = 1;
      ASSERT_TRUE(director_->SetMetrics("default/e" + std::to_string(rng() % 100), m).ok());
      metrics_at += milliseconds(50);
    }
    while (!ends.empty() && ends.top().at <= clock_.Now()) {
      std::string none;
      const std::shared_ptr<RequestState> state = ends.top().ends;
      ends.pop();
      director_->OnResponseHeaders(state, 200, {});
      director_->OnResponseBody(state, "{}", true, &none);
    }
    if (clock_.Now() < next) continue;
    next += milliseconds((asked / 1000) % 2 == 0 ? 8 : 64);
    ++asked;
    RequestInput input;
    input.headers = &headers[rng() % 5];
    input.body = body;
    director_->Route(std::move(input), [&, at = clock_.Now()](const Routing& r) {
      ++(r.ok ? routed : refused);
      if (!r.ok) late += clock_.Now() - at != seconds(3);
      if (r.ok) ends.push({clock_.Now() + milliseconds(2000 + rng() % 1000), r.state});
    });
  }
  Until(clock_.Now() + seconds(30));
  const double took = static_cast<double>(std::clock() - real) / CLOCKS_PER_SEC;
  EXPECT_EQ(routed + refused, asked);
  EXPECT_GT(refused, 0);
  EXPECT_NEAR(static_cast<double>(asked), 1e5, 1e4);
  EXPECT_EQ(late, 0);
  const json::Value last = director_->Decisions(1).AsArray().at(0);
  const auto told = json::Parse(director_->Explain(last["request_id"].AsString()).value());
  ASSERT_TRUE(told.ok());
  const size_t stale = (*told)["stale"].AsArray().size();
  EXPECT_GT(stale, 10u);
  EXPECT_LT(stale, 90u);
  std::printf("%lld routed, %lld refused, %.2f s of CPU\n", static_cast<long long>(routed),
              static_cast<long long>(refused), took);
  while (!ends.empty()) ends.pop();
}

}  // namespace
}  // namespace llmd::sched
