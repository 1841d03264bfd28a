// The saturation of a pool by stage, over the two detectors.
#include "flow/pool_load.h"

#include <cmath>

#include "config/graph.h"
#include "llmd/sched/hooks.h"
#include "sched/flow/flow_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// A pool whose gauges were read at a given time, and a detector with the requests sent through it.
class PoolLoadTest : public ::testing::Test {
 protected:
  void Start(const std::string& detector, const std::string& parameters = "{}") {
    auto graph =
        LoadGraph(Config({"{type: " + detector + ", parameters: " + parameters + "}",
                          "{type: queue-scorer}"}) +
                      "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n"
                      "flowControl: {saturationDetector: {pluginRef: " +
                      detector + "}}\n",
                  {.clock = &clock_, .metrics = &metrics_});
    ASSERT_TRUE(graph.ok()) << graph.status().ToString();
    graph_ = *graph;
    meter_ = std::make_unique<PoolMeter>(*graph_->saturation, [](const Plugin&, const Status&) {});
    clock_.Advance(seconds(10));
  }
  // One endpoint more, read now.
  void Add(double waiting, double kv, const std::string& role = "") {
    EndpointState e = Ep("e" + std::to_string(set_->size()), waiting, 0, kv, role);
    e.metrics.updated = clock_.Now();
    set_->Add(std::make_shared<const EndpointInfo>(e.info), static_cast<uint32_t>(set_->size()));
    snapshot_.Add(std::make_shared<const EndpointMetrics>(e.metrics));
    snapshot_.set = set_;
  }
  void Send(RequestContext& request, uint32_t endpoint, double tokens = 0) {
    request.Reset(graph_->attribute_count);
    for (Attribute& a : request.attributes) {
      a.present = true;
      a.per_endpoint.assign(set_->size(), tokens);
    }
    ScheduleOutcome outcome;
    outcome.primary = {endpoint};
    HeaderList headers;
    OpenCharges(request, snapshot_, outcome);
    for (PreRequestHook* hook : graph_->pre_request)
      hook->PreRequest(request, snapshot_, outcome, headers);
  }
  void Begin(RequestContext& request) {
    for (ResponseHook* hook : graph_->response) hook->OnFirstChunk(request, {});
    request.charges.FirstChunk();
  }
  void End(RequestContext& request) {
    for (ResponseHook* hook : graph_->response) hook->OnEnd(request, {});
    request.charges.End();
  }
  PoolLoad Read() { return meter_->Read(snapshot_); }

  FakeClock clock_;
  MetricsRegistry metrics_;
  std::shared_ptr<Graph> graph_;
  std::unique_ptr<PoolMeter> meter_;
  std::shared_ptr<EndpointSet> set_ = std::make_shared<EndpointSet>();
  Snapshot snapshot_;
};

TEST_F(PoolLoadTest, AnEmptyPoolIsFull) {
  Start("utilization-detector");
  EXPECT_EQ(Read().effective, 1);
  EXPECT_EQ(Read().prefill, 0);
}

TEST_F(PoolLoadTest, TheFullerStageCountsAndDualRolesAreInBoth) {
  Start("utilization-detector");
  Add(1, 0, "decode");   // .2
  Add(4, 0, "prefill");  // .8
  Add(2, 0, "prefill-decode");
  Add(0, 0.8);  // 1, unlabelled: decode
  const PoolLoad load = Read();
  EXPECT_NEAR(load.decode, (0.2 + 0.4 + 1) / 3, 1e-12);
  EXPECT_NEAR(load.prefill, (0.8 + 0.4) / 2, 1e-12);
  EXPECT_EQ(load.effective, load.prefill);
}

TEST_F(PoolLoadTest, AStageThatNobodyIsInDoesNotCount) {
  struct Case {
    std::vector<std::string> roles;  // of endpoints at .2, .4, …
    double prefill, decode;
  };
  for (const Case& c : std::vector<Case>{{{"prefill"}, 0.2, 0},
                                         {{"encode"}, 0, 0.2},
                                         {{"worker"}, 0, 0.2},
                                         {{""}, 0, 0.2},
                                         {{"decode"}, 0, 0.2},
                                         {{"encode-prefill"}, 0.2, 0},
                                         {{"decode", "encode"}, 0, 0.2},
                                         {{"prefill", "encode"}, 0.2, 0},
                                         {{"prefill", "worker"}, 0.2, 0.4},
                                         {{"decode", "worker"}, 0, 0.3}}) {
    set_ = std::make_shared<EndpointSet>();
    snapshot_ = Snapshot();
    Start("utilization-detector");
    double waiting = 0;
    for (const std::string& role : c.roles) Add(++waiting, 0, role);
    const PoolLoad load = Read();
    EXPECT_NEAR(load.prefill, c.prefill, 1e-12) << c.roles[0];
    EXPECT_NEAR(load.decode, c.decode, 1e-12) << c.roles[0];
    EXPECT_EQ(load.effective, std::max(load.prefill, load.decode)) << c.roles[0];
    EXPECT_LE(load.per_request, 0.2) << c.roles[0];
  }
}

TEST_F(PoolLoadTest, StaleEndpointsAreJudgedByOwnRequestsAndCounted) {
  Start("utilization-detector", "{staleMaxConcurrency: 4, metricsStalenessThreshold: 200ms}");
  Add(5, 0);
  EXPECT_EQ(Read().effective, 1);
  clock_.Advance(milliseconds(200));
  EXPECT_EQ(Read().effective, 1);
  EXPECT_EQ(Read().stale, 0u);
  clock_.Advance(milliseconds(1));
  EXPECT_EQ(Read().effective, 0) << "its dead gauges would hold the gate shut for ever";
  EXPECT_EQ(Read().stale, 1u);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_flow_control_stale_endpoints{detector="
                                           "\"utilization-detector\"} 1.0"));
  std::vector<RequestContext> requests(4);
  for (RequestContext& r : requests) Send(r, 0);
  EXPECT_EQ(Read().effective, 1);
  End(requests[0]);
  EXPECT_EQ(Read().effective, 0.75);
}

TEST_F(PoolLoadTest, WhatNoScrapeHasShownYetCountsAsWaitingUntilItIsAnswered) {
  Start("utilization-detector");
  Add(0, 0);
  EXPECT_EQ(Read().effective, 0);  // as before every dispatch
  std::vector<RequestContext> requests(6);
  for (int i = 0; i < 5; ++i) Send(requests[i], 0);
  EXPECT_EQ(Read().effective, 1) << "a whole backlog must not slip through between two scrapes";
  Begin(requests[0]);
  Begin(requests[0]);
  End(requests[1]);
  EXPECT_EQ(Read().effective, 0.6);
  clock_.Advance(milliseconds(50));
  set_ = std::make_shared<EndpointSet>(*set_);
  snapshot_ = Snapshot();
  EndpointState e = Ep("e0", 2);
  e.metrics.updated = clock_.Now();
  e.metrics.page = 1;
  snapshot_.Add(std::make_shared<const EndpointMetrics>(e.metrics));
  snapshot_.set = set_;
  EXPECT_EQ(Read().effective, 0.4) << "now the engine has told";
  End(requests[2]);  // sent before that scrape
  EXPECT_EQ(Read().effective, 0.4);
  Send(requests[5], 0);
  EXPECT_EQ(Read().effective, 0.6);
}

TEST_F(PoolLoadTest, ConcurrencyCountsRequestsTokensOrTheHigher) {
  for (const auto& [mode, full] : std::vector<std::pair<std::string, double>>{
           {"requests", 0.5}, {"tokens", 0.75}, {"hybrid", 0.75}}) {
    set_ = std::make_shared<EndpointSet>();
    snapshot_ = Snapshot();
    Start("concurrency-detector",
          "{maxConcurrency: 2, maxTokenConcurrency: 1000, "
          "concurrencyMode: " +
              mode + "}");
    Add(0, 0);
    RequestContext request;
    Send(request, 0, 750);
    EXPECT_EQ(Read().effective, full) << mode;
    EXPECT_EQ(Read().per_request, mode == "requests" ? 0.5 : INFINITY);
    End(request);
    EXPECT_EQ(Read().effective, 0) << mode;
  }
}

TEST_F(PoolLoadTest, CountsByTheFieldsDefaults) {
  Start("utilization-detector");
  Add(0, 0.8);
  EXPECT_EQ(Read().effective, 1);
  EXPECT_EQ(Read().per_request, 0.2);
  clock_.Advance(milliseconds(200));
  EXPECT_EQ(Read().stale, 0u);
  clock_.Advance(milliseconds(1));
  EXPECT_EQ(Read().stale, 1u);
  RequestContext request;
  Send(request, 0);
  EXPECT_EQ(Read().effective, 0.01);
  End(request);
  for (const auto& [mode, share] : {std::pair{"requests", 0.01}, {"tokens", 0.00075}}) {
    Start("concurrency-detector", std::string("{concurrencyMode: ") + mode + "}");
    Send(request, 0, 750);
    EXPECT_EQ(Read().effective, share) << mode;
    End(request);
  }
}

TEST_F(PoolLoadTest, RoomShowsAtOnceInOwnCountsAndLaterInScrapedOnes) {
  Start("concurrency-detector");
  EXPECT_EQ(graph_->saturation->ReactionTime(milliseconds(50)), milliseconds(10));
  Start("utilization-detector", "{metricsStalenessThreshold: 300ms}");
  EXPECT_EQ(graph_->saturation->ReactionTime(milliseconds(50)), milliseconds(600));
}

}  // namespace
}  // namespace llmd::sched
