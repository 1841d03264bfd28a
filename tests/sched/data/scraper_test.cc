#include "llmd/sched/data/scraper.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Pages by path, so that an endpoint's sources answer apart; those held answer when released.
class PathFetch final : public Fetch {
 public:
  void Get(const EndpointInfo& endpoint, const PageSpec& page, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    asked.push_back(endpoint.address + ":" + std::to_string(page.port) + page.path);
    if (held.contains(endpoint.name)) return waiting.push_back(std::move(done));
    const auto text = pages.find(page.path);
    done(text == pages.end() ? StatusOr<std::string>(Unavailable("HTTP 500")) : text->second);
  }
  std::map<std::string, std::string> pages;
  std::set<std::string> held;  // names of endpoints
  std::vector<std::function<void(StatusOr<std::string>)>> waiting;
  std::vector<std::string> asked;
};

// Metrics every 100 ms with a broken extractor beside the right one, models every second, DCGM.
constexpr const char* kThreeSources = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: metrics-data-source
- type: core-metrics-extractor
- {name: sglang, type: core-metrics-extractor, parameters: {defaultEngine: sglang}}
- {type: models-data-source, parameters: {interval: 1s}}
- type: models-data-extractor
- {type: dcgm-data-source, parameters: {interval: 200ms, path: /gpu, useNodeAddress: true}}
- type: dcgm-extractor
- type: endpoint-attribute-scorer
  parameters:
    attributeKey: GPUUtilization
    producer: dcgm-extractor
    algorithm: {type: linear_lower_is_better}
dataLayer:
  sources:
  - {pluginRef: metrics-data-source, extractors: [{pluginRef: sglang}, {pluginRef: core-metrics-extractor}]}
  - {pluginRef: models-data-source, extractors: [{pluginRef: models-data-extractor}]}
  - {pluginRef: dcgm-data-source, extractors: [{pluginRef: dcgm-extractor}]}
)";

class ManySources : public ::testing::Test {
 protected:
  ManySources() {
    StatusOr<std::shared_ptr<Graph>> graph = LoadGraph(kThreeSources, {});
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    EndpointInfo a = Ep("a").info, b = Ep("b").info;
    a.labels["llm-d.ai/node-address"] = "10.9.9.9";
    store_.Update({a, b});
    scraper_ = std::make_unique<Scraper>(
        *graph, fetch_, store_, clock_, Logger(sink_, LogLevel::kDefault), metrics_,
        ScraperOptions{.interval = milliseconds(100), .staleness = milliseconds(500)});
    fetch_->pages = {{"/metrics", "vllm:num_requests_waiting 7\n"},
                     {"/v1/models", R"({"data":[{"id":"base"},{"id":"lora","parent":"base"}]})"},
                     {"/gpu", "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 40\n"}};
    clock_.Advance(milliseconds(1000));
  }
  void Run(int steps, int ms = 10) {
    for (int i = 0; i < steps; ++i) {
      scraper_->Tick();
      clock_.Advance(milliseconds(ms));
    }
  }
  std::string Exposed() { return metrics_.Expose(); }
  FakeClock clock_;
  MetricsRegistry metrics_;
  std::shared_ptr<MemoryLogSink> sink_ = std::make_shared<MemoryLogSink>();
  EndpointStore store_{&clock_, milliseconds(500)};
  std::shared_ptr<PathFetch> fetch_ = std::make_shared<PathFetch>();
  std::unique_ptr<Scraper> scraper_;
};

class ScraperTest : public ::testing::Test {
 protected:
  ScraperTest() {
    graph_ = *LoadGraph("", {});
    store_.Update({Ep("a").info, Ep("b").info});
    scraper_ = std::make_unique<Scraper>(graph_, fetch_, store_, clock_, Logger(), metrics_,
                                         ScraperOptions{.interval = milliseconds(100)});
    clock_.Advance(milliseconds(1000));
  }
  FakeClock clock_;
  MetricsRegistry metrics_;
  EndpointStore store_;
  std::shared_ptr<CannedFetch> fetch_ = std::make_shared<CannedFetch>();
  std::shared_ptr<Graph> graph_;
  std::unique_ptr<Scraper> scraper_;
};

TEST_F(ScraperTest, SpreadsEndpointsOverTheInterval) {
  const TimePoint start = clock_.Now();
  EXPECT_EQ(scraper_->Tick(), start + milliseconds(50));
  EXPECT_THAT(fetch_->TakeAsked(), ElementsAre("a/metrics"));
  clock_.Advance(milliseconds(50));
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), ElementsAre("b/metrics"));
  clock_.Advance(milliseconds(49));
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), IsEmpty());
  clock_.Advance(milliseconds(1));
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), ElementsAre("a/metrics"));
}

TEST_F(ScraperTest, MissedTurnsAreLeftOut) {
  scraper_->Tick();
  clock_.Advance(milliseconds(1030));
  scraper_->Tick();
  EXPECT_EQ(fetch_->TakeAsked().size(), 3u);  // a at 0, then each once
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), IsEmpty());
}

TEST_F(ScraperTest, FailuresKeepTheValuesAndTheirAge) {
  fetch_->Set("a", std::string("vllm:num_requests_waiting 7\n"));
  scraper_->Tick();
  const TimePoint good = clock_.Now();
  EXPECT_EQ(store_.Get()->waiting[0], 7);
  EXPECT_EQ(store_.Get()->updated[0], good);
  fetch_->Set("a", Unavailable("HTTP 500"));
  clock_.Advance(milliseconds(300));
  scraper_->Tick();
  EXPECT_EQ(store_.Get()->waiting[0], 7);
  EXPECT_EQ(store_.Get()->updated[0], good);
  EXPECT_THAT(metrics_.Expose(), ::testing::HasSubstr("llm_d_epp_datalayer_poll_errors_total"));
  EXPECT_FALSE(store_.Get()->metrics[1]->ever);
}

TEST_F(ManySources, EachRunsAtItsOwnInterval) {
  Run(200);  // two seconds
  std::map<std::string, int> count;
  for (const std::string& what : fetch_->asked) ++count[what.substr(what.find('/'))];
  EXPECT_EQ(count["/metrics"], 2 * 20);
  EXPECT_EQ(count["/v1/models"], 2 * 2);
  EXPECT_EQ(count["/gpu"], 10);  // of the one whose node is known
  EXPECT_THAT(fetch_->asked, ::testing::Contains("10.9.9.9:9400/gpu"));
}

TEST_F(ManySources, FillOneEndpointTogether) {
  Run(200);
  const auto snapshot = store_.Get();
  EXPECT_EQ(snapshot->waiting[0], 7);
  EXPECT_EQ(snapshot->Attribute(kFirstAttribute, 0), 0.4);
  EXPECT_TRUE(std::isnan(snapshot->Attribute(kFirstAttribute, 1)));
  ASSERT_NE(snapshot->metrics[1]->served_models, nullptr);
  EXPECT_THAT(*snapshot->metrics[1]->served_models,
              ElementsAre(ServedModel{"base", ""}, ServedModel{"lora", "base"}));
}

TEST_F(ManySources, CountErrorsBySourceAndExtractor) {
  fetch_->pages.erase("/v1/models");
  Run(100);  // one second
  const std::string text = Exposed();
  EXPECT_THAT(text, ::testing::HasSubstr("llm_d_epp_datalayer_poll_errors_total{source_type="
                                         "\"models-data-source\"} 2.0"));
  // The endpoint without a node label is never asked.
  EXPECT_THAT(text, ::testing::HasSubstr("llm_d_epp_datalayer_poll_errors_total{source_type="
                                         "\"dcgm-data-source\"} 5.0"));
  EXPECT_THAT(text, ::testing::HasSubstr("llm_d_epp_datalayer_poll_errors_total{source_type="
                                         "\"metrics-data-source\"} 0.0"));
  // Both extractors of that source are of one type: the sglang one fails on each page.
  EXPECT_THAT(text, ::testing::HasSubstr(
                        "llm_d_epp_datalayer_extract_errors_total{extractor_type=\"core-metrics-"
                        "extractor\",source_type=\"metrics-data-source\"} 20.0"));
  int told = 0;
  for (const json::Value& line : sink_->Lines())
    told += line["msg"].AsString().starts_with("Failed to");
  EXPECT_EQ(told, 5);  // once an outage: models and metrics of both, dcgm of one
}

TEST_F(ManySources, OnlyTheGaugesOwnSourceKeepsAnEndpointFresh) {
  Run(100);
  EXPECT_EQ(store_.Get()->stale[0], 0);
  fetch_->pages.erase("/metrics");
  Run(60);  // models and DCGM go on
  EXPECT_EQ(store_.Get()->stale[0], 1);
  EXPECT_TRUE(std::isnan(store_.Get()->waiting[0]));
  EXPECT_EQ(store_.Get()->Attribute(kFirstAttribute, 0), 0.4);
  EXPECT_NE(store_.Get()->metrics[0]->served_models, nullptr);
}

TEST_F(ManySources, AttributesAgeWithTheirSource) {
  Run(100);
  fetch_->pages.erase("/gpu");
  Run(40);  // the interval of 200 ms counts beside the limit of 500 ms
  EXPECT_EQ(store_.Get()->Attribute(kFirstAttribute, 0), 0.4);
  Run(40);
  EXPECT_TRUE(std::isnan(store_.Get()->Attribute(kFirstAttribute, 0)));
  EXPECT_EQ(store_.Get()->waiting[0], 7);
}

TEST_F(ManySources, ASlowEndpointHoldsUpNobody) {
  fetch_->held.insert("a");
  Run(100);
  std::map<std::string, int> count;
  for (const std::string& what : fetch_->asked) ++count[what];
  EXPECT_EQ(fetch_->waiting.size(), 3u);  // one of each source, and no second one
  EXPECT_EQ(store_.Get()->stale[1], 0);
  EXPECT_EQ(store_.Get()->waiting[1], 7);
  fetch_->held.clear();
  for (auto& done : fetch_->waiting) done(std::string("vllm:num_requests_waiting 3\n"));
  EXPECT_EQ(store_.Get()->waiting[0], 3);
  Run(20);
  EXPECT_EQ(store_.Get()->waiting[0], 7);
}

TEST_F(ManySources, TwoThatAnswerAtOnceKeepEachOthersValues) {
  fetch_->held.insert("a");
  for (int round = 1; round <= 200; ++round) {
    fetch_->waiting.clear();
    Run(1, 1000);  // all three are due
    const auto calls = fetch_->waiting;
    ASSERT_EQ(calls.size(), 3u);
    std::string n = std::to_string(round % 90 + 1);
    std::thread gauges([&] { calls[0]("vllm:num_requests_waiting " + n + "\n"); });
    std::thread models([&] { calls[1](R"({"data":[{"id":")" + n + R"("}]})"); });
    calls[2]("DCGM_FI_DEV_GPU_UTIL " + n + "\n");
    gauges.join();
    models.join();
    const auto metrics = store_.Metrics(store_.Members()->infos[0]);
    EXPECT_EQ(metrics->waiting, round % 90 + 1);
    EXPECT_EQ(metrics->served_models->at(0).id, n);
    EXPECT_DOUBLE_EQ(metrics->attributes.at(0).value, (round % 90 + 1) / 100.0);
  }
}

TEST_F(ManySources, ThoseThatStayKeepTheirTurns) {
  Run(100);
  fetch_->asked.clear();
  EndpointInfo c = Ep("c").info;
  std::vector<EndpointInfo> members = {c};
  for (const auto& info : store_.Members()->infos) members.push_back(*info);
  store_.Update(members);
  Run(10);  // one interval of the gauges
  EXPECT_EQ(std::count(fetch_->asked.begin(), fetch_->asked.end(), "10.0.0.1:0/metrics"), 3);
  store_.Update({c});
  fetch_->asked.clear();
  Run(10);
  EXPECT_EQ(std::count(fetch_->asked.begin(), fetch_->asked.end(), "10.0.0.1:0/metrics"), 1);
  store_.Update({});
  fetch_->asked.clear();
  Run(50);
  EXPECT_THAT(fetch_->asked, IsEmpty());
}

constexpr const char* kCustomGauge = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: metrics-data-source
- type: core-metrics-extractor
  parameters: {customMetrics: [{attributeKey: Heat, metricSpec: heat}]}
- type: endpoint-attribute-scorer
  parameters:
    attributeKey: Heat
    producer: core-metrics-extractor
    algorithm: {type: linear_lower_is_better}
dataLayer:
  sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]
)";

TEST(ScraperAttributes, AgeWhereThePageNoLongerHasThem) {
  StatusOr<std::shared_ptr<Graph>> graph = LoadGraph(kCustomGauge, {});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  FakeClock clock;
  MetricsRegistry metrics;
  EndpointStore store(&clock);
  store.Update({Ep("a").info});
  const auto fetch = std::make_shared<PathFetch>();
  Scraper scraper(*graph, fetch, store, clock, Logger(), metrics,
                  {.interval = milliseconds(100), .staleness = milliseconds(500)});
  const auto heat = [&] { return store.Get()->Attribute(kFirstAttribute, 0); };
  const auto run = [&](const char* page, int ms) {
    fetch->pages = {{"/metrics", page}};
    for (int t = 0; t < ms; t += 100) {
      clock.Advance(milliseconds(100));
      scraper.Tick();
    }
  };
  run("vllm:num_requests_waiting 1\nheat 7\n", 2000);
  EXPECT_EQ(heat(), 7);
  run("vllm:num_requests_waiting 1\n", 500);
  EXPECT_EQ(heat(), 7) << "not stale yet";
  run("vllm:num_requests_waiting 1\n", 300);
  EXPECT_TRUE(std::isnan(heat()));
  run("vllm:num_requests_waiting 1\nheat 8\n", 100);
  EXPECT_EQ(heat(), 8);
}

TEST_F(ScraperTest, RunsItsOwnThreadAndStops) {
  Scraper threaded(graph_, fetch_, store_, SystemClock(), Logger(), metrics_,
                   ScraperOptions{.interval = milliseconds(1)});
  fetch_->Set("a", std::string("vllm:num_requests_waiting 7\n"));
  threaded.Start();
  for (int i = 0; i < 1000 && store_.Get()->waiting[0] != 7; ++i)
    std::this_thread::sleep_for(milliseconds(1));
  threaded.Stop();
  EXPECT_EQ(store_.Get()->waiting[0], 7);
}

}  // namespace
}  // namespace llmd::sched
