// Metrics that stop coming: gauges of a stale endpoint count as unknown, and load is judged by our
// own requests in flight.
#include <cmath>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "llmd/sched/data/scraper.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";

class StaleStore : public ::testing::Test {
 protected:
  StaleStore() : store_(&clock_, seconds(2)) {
    clock_.Advance(seconds(100));
    store_.Update({Ep("a").info, Ep("b").info});
  }
  void Heard(size_t i, double waiting) {
    EndpointMetrics m;
    m.waiting = waiting;
    m.block_size = 16;
    m.num_blocks = 1000;
    m.active_models = {"adapter"};
    m.updated = clock_.Now();
    m.ever = true;
    store_.SetMetrics(store_.Members()->infos[i], m);
  }
  FakeClock clock_;
  EndpointStore store_;
};

TEST_F(StaleStore, NeverHeardIsStaleAndFreshIsNot) {
  Heard(0, 3);
  const auto snapshot = store_.Get();
  EXPECT_THAT(snapshot->stale, ElementsAre(0, 1));
  EXPECT_EQ(snapshot->waiting[0], 3);
  EXPECT_TRUE(std::isnan(snapshot->waiting[1]));
  EXPECT_TRUE(std::isnan(snapshot->kv_usage[1]));
}

TEST_F(StaleStore, GrowsStaleByTheClockAloneAndKeepsWhatDoesNotAge) {
  Heard(0, 3);
  Heard(1, 5);
  clock_.Advance(seconds(2));
  EXPECT_THAT(store_.Get()->stale, ElementsAre(0, 0));
  clock_.Advance(milliseconds(1));
  const auto snapshot = store_.Get();
  EXPECT_THAT(snapshot->stale, ElementsAre(1, 1));
  EXPECT_TRUE(std::isnan(snapshot->running[0]));
  EXPECT_EQ(snapshot->metrics[0]->block_size, 16);
  EXPECT_EQ(snapshot->metrics[0]->num_blocks, 1000);
  EXPECT_THAT(snapshot->metrics[0]->active_models, IsEmpty());
  EXPECT_EQ(snapshot->updated[0], clock_.Now() - seconds(2) - milliseconds(1));
  Heard(1, 6);
  EXPECT_THAT(store_.Get()->stale, ElementsAre(1, 0));
  EXPECT_EQ(store_.Get()->waiting[1], 6);
}

TEST_F(StaleStore, OneSnapshotServesUntilSomethingChanges) {
  Heard(0, 3);
  const auto first = store_.Get();
  clock_.Advance(milliseconds(500));
  EXPECT_EQ(store_.Get(), first);
  clock_.Advance(seconds(2));
  EXPECT_NE(store_.Get(), first);
}

TEST(EndpointStoreWithoutAClock, NothingGrowsStale) {
  EndpointStore store;
  store.Update({Ep("a").info});
  EXPECT_THAT(store.Get()->stale, ElementsAre(0));
  EXPECT_EQ(store.Get()->waiting[0], 0);
}

// A director that scrapes on its own thread, with time in the test's hand.
class StaleDirector : public DirectorFixture {
 protected:
  void StartScraping(const std::vector<std::string>& plugins, const std::string& rest = "") {
    path_ = ::testing::TempDir() + "stale_" + std::to_string(::getpid()) + ".yaml";
    std::ofstream(path_) << "endpoints: [" << Two() << "]\nobjectives: [{name: low, priority: -1}]";
    std::vector<std::string> all = plugins;
    all.push_back("{type: file-discovery, parameters: {path: " + path_ + "}}");
    options_.config_yaml =
        Config(all) + "dataLayer: {discovery: {pluginRef: file-discovery}}\n" + rest;
    options_.refresh_metrics_interval = milliseconds(1);
    clock_.Advance(seconds(100));
    auto made =
        Director::Create(options_, fetch_, Logger(sink_, LogLevel::kDebug), metrics_, clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  // Until the scraper has shown both pages once more; bounded.
  Routing Until(const std::function<bool(const Routing&)>& wanted) {
    Routing r;
    for (int i = 0; i < 2000; ++i) {
      clock_.Advance(milliseconds(2));
      r = Route(kBody, headers_in_);
      if (r.trace && wanted(r)) return r;
      std::this_thread::sleep_for(milliseconds(1));
    }
    ADD_FAILURE() << "the scraper did not get there";
    return r;
  }
  std::shared_ptr<CannedFetch> fetch_ = std::make_shared<CannedFetch>();
  HeaderList headers_in_;
};

TEST_F(StaleDirector, AnEndpointThatAnswers500DoesNotKeepWinning) {
  fetch_->Set("a", std::string("vllm:num_requests_waiting 0\n"));
  fetch_->Set("b", std::string("vllm:num_requests_waiting 9\n"));
  StartScraping({"{type: queue-scorer}"});
  const Routing fresh = Until([](const Routing& r) { return r.trace->stale.empty(); });
  EXPECT_THAT(fresh.endpoints, ElementsAre("127.0.0.1:8001"));
  fetch_->Set("a", Unavailable("HTTP 500"));
  clock_.Advance(seconds(3));
  const Routing later = Until([](const Routing& r) { return r.trace->stale.size() == 1; });
  EXPECT_THAT(later.trace->stale, ElementsAre(0));
  EXPECT_THAT(later.endpoints, ElementsAre("127.0.0.1:8002"));
  EXPECT_TRUE(std::isnan(later.trace->profiles[0].scores[0].raw[0]));
  EXPECT_EQ(later.trace->profiles[0].totals[0], 0);
  EXPECT_GT(later.trace->metrics_age_ms[0], 2000);
  EXPECT_THAT(ToText(*later.trace), HasSubstr("(stale)"));
}

TEST_F(StaleDirector, WithoutAnyMetricsTheGateFollowsOwnRequests) {
  StartScraping({"{type: queue-scorer}",
                 "{type: utilization-detector, parameters: {staleMaxConcurrency: 2}}"},
                "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n");
  const HeaderList low = {{"x-llm-d-inference-objective", "low"}};
  std::vector<Routing> held;
  // Two endpoints of two each: a sheddable request passes until their mean is full.
  for (int i = 0; i < 4; ++i) {
    held.push_back(Route(kBody, low));
    ASSERT_TRUE(held.back().ok) << i << held.back().denial.message;
  }
  const Routing shed = Route(kBody, low);
  EXPECT_FALSE(shed.ok);
  EXPECT_EQ(shed.denial.http_status, 429);
  EXPECT_EQ(shed.denial.retry_after_s, 1);
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("llm_d_epp_flow_control_stale_endpoints{detector=\"utilization-detector\"} "
                        "2.0"));
  held.clear();
  EXPECT_TRUE(Route(kBody, low).ok);
}

}  // namespace
}  // namespace llmd::sched
