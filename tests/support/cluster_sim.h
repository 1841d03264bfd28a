// Simulated engines behind the real plugin graph, in virtual time: requests are scheduled by the
// configuration's plugins and answered by SimEngine, and every hook sees what it would see live.
// Seeded; the same seed and configuration give the same run.
#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "pass/scheduling_pass.h"
#include "support/engine_sim.h"
#include "trace/record.h"

namespace llmd::sched {

struct SimWorkload {
  int requests = 4000;
  double per_second = 30;  // swings by 60 % over 20 s
  double slo_ttft_ms = 600, slo_tpot_ms = 45;
  uint64_t seed = 1;
};

struct SimOutcome {
  LatencyPrediction predicted;  // for the chosen endpoint, when it was chosen
  double ttft_ms = 0, tpot_ms = 0;
  bool met = false;  // both SLOs
};

// Owned by one thread.
class SimCluster {
 public:
  // One engine per entry of `costs`.
  SimCluster(const std::string& yaml, const std::vector<SimEngineCosts>& costs) {
    auto loaded = LoadGraph(yaml, {.clock = &clock_, .metrics = &metrics_});
    if (!loaded.ok()) throw std::runtime_error(loaded.status().ToString());
    graph_ = *loaded;
    auto set = std::make_shared<EndpointSet>();
    for (size_t i = 0; i < costs.size(); ++i) {
      auto info = std::make_shared<EndpointInfo>();
      info->name = "e" + std::to_string(i);
      info->address = "10.0.0.1";
      info->port = static_cast<uint16_t>(8000 + i);
      set->Add(info, static_cast<uint32_t>(i));
      engines_.push_back(std::make_unique<SimEngine>(
          costs[i], [this](const SimRequest& r, double at) { FirstToken(r, at); },
          [this](const SimRequest& r, double at) { Finished(r, at); }));
    }
    set_ = std::move(set);
    Scrape();
  }

  // Outcomes in order of arrival.
  std::vector<SimOutcome> Run(const SimWorkload& workload) {
    outcomes_.assign(static_cast<size_t>(workload.requests), {});
    std::mt19937_64 rng(workload.seed);
    std::exponential_distribution<> gap(1);
    std::lognormal_distribution<> own(6.5, 1.0), answer(4.5, 0.8);
    double at = 0;
    for (int i = 0; i < workload.requests; ++i) {
      const double swing = 1 + 0.6 * std::sin(at / 20'000 * 2 * M_PI);
      at += gap(rng) * 1000 / (workload.per_second * swing);
      SimRequest r{.id = static_cast<uint64_t>(i), .arrival_ms = at};
      r.group = static_cast<int>(rng() % 40);
      r.shared_tokens = 200 + r.group * 37 % 1500;
      r.prompt_tokens = r.shared_tokens + 1 + static_cast<int>(std::min(12'000.0, own(rng)));
      r.output_tokens = 2 + static_cast<int>(std::min(1500.0, answer(rng)));
      r.slo_ttft_ms = workload.slo_ttft_ms;
      r.slo_tpot_ms = workload.slo_tpot_ms;
      RunUntil(at);
      Arrive(r);
    }
    RunUntil(at + 1e7);
    return std::move(outcomes_);
  }

  MetricsRegistry& metrics() { return metrics_; }

 private:
  struct Live {
    RequestContext context;
    double sent_ms = 0, first_ms = 0;
  };

  static std::string PromptOf(const SimRequest& r) {
    const std::string shared = "g" + std::to_string(100 + r.group);
    std::string own = std::to_string(10'000'000 + r.id), out;
    out.reserve(static_cast<size_t>(r.prompt_tokens) * 4 + 8);
    for (int i = 0; i < r.shared_tokens; ++i) out += shared;
    while (out.size() < static_cast<size_t>(r.prompt_tokens) * 4) out += own;
    return out;
  }
  void AdvanceTo(double at_ms) {
    if (at_ms <= now_ms_) return;
    clock_.Advance(Duration(static_cast<int64_t>((at_ms - now_ms_) * 1e6)));
    now_ms_ = at_ms;
  }
  void RunUntil(double at_ms) {
    for (;;) {
      SimEngine* next = nullptr;
      for (auto& e : engines_) {
        if (e->next_ms() >= 0 && (next == nullptr || e->next_ms() < next->next_ms()))
          next = e.get();
      }
      if (next == nullptr || next->next_ms() > at_ms) break;
      while (scrape_due_ms_ < next->next_ms()) ScrapeAt(scrape_due_ms_);
      AdvanceTo(next->next_ms());
      next->Step();
    }
    if (at_ms - scrape_due_ms_ > 1000) scrape_due_ms_ = at_ms - 1;  // idle: nothing changes
    while (scrape_due_ms_ < at_ms) ScrapeAt(scrape_due_ms_);
    AdvanceTo(at_ms);
  }
  void ScrapeAt(double at_ms) {
    AdvanceTo(at_ms);
    Scrape();
  }
  void Scrape() {
    scrape_due_ms_ += 50;
    snapshot_ = Snapshot();
    snapshot_.set = set_;
    for (const auto& e : engines_) {
      auto m = std::make_shared<EndpointMetrics>();
      m->waiting = e->waiting();
      m->running = e->running();
      m->kv_usage = e->kv_usage();
      m->ever = true;
      snapshot_.Add(std::move(m));
    }
  }

  void Arrive(const SimRequest& r) {
    auto live = std::make_unique<Live>();
    RequestContext& c = live->context;
    const std::string body = R"({"model":"m","stream":true,"prompt":")" + PromptOf(r) + "\"}";
    c.Reset(graph_->attribute_count);
    c.id = r.id;
    c.path = "/v1/completions";
    c.body = body;
    c.AllEligible(snapshot_.size());
    c.received = clock_.Now();
    c.random = r.id * 0x9e3779b97f4a7c15;
    c.slo_ttft_ms = r.slo_ttft_ms;
    c.slo_tpot_ms = r.slo_tpot_ms;
    if (!graph_->FindParser(c.path)->Parse(c).ok()) throw std::runtime_error("body");
    c.target_model = c.model;
    record_.Reset();
    SchedulingPass pass(*graph_, c, snapshot_, record_);
    pass.Produce();
    pass.Schedule(outcome_);
    HeaderList headers;
    OpenCharges(c, snapshot_, outcome_);
    for (PreRequestHook* hook : graph_->pre_request)
      hook->PreRequest(c, snapshot_, outcome_, headers);
    c.ReleaseBulk();
    if (!c.visits.empty()) outcomes_[r.id].predicted = c.visits[0].predicted;
    live->sent_ms = now_ms_;
    live_[r.id] = std::move(live);
    engines_[outcome_.primary.at(0)]->Submit(r, now_ms_);
  }
  void FirstToken(const SimRequest& r, double at) {
    AdvanceTo(at);
    Live& live = *live_.at(r.id);
    live.first_ms = at;
    for (ResponseHook* hook : graph_->response) hook->OnFirstChunk(live.context, {.status = 200});
    live.context.charges.FirstChunk();
  }
  void Finished(const SimRequest& r, double at) {
    AdvanceTo(at);
    Live& live = *live_.at(r.id);
    ResponseInfo info{.status = 200};
    info.usage.completion_tokens = r.output_tokens;
    for (ResponseHook* hook : graph_->response) hook->OnEnd(live.context, info);
    live.context.charges.End();
    SimOutcome& o = outcomes_[r.id];
    o.ttft_ms = live.first_ms - live.sent_ms;
    o.tpot_ms = (at - live.first_ms) / (r.output_tokens - 1);
    o.met = o.ttft_ms <= r.slo_ttft_ms && o.tpot_ms <= r.slo_tpot_ms;
    live_.erase(r.id);
  }

  FakeClock clock_;
  MetricsRegistry metrics_;
  std::shared_ptr<Graph> graph_;
  std::vector<std::unique_ptr<SimEngine>> engines_;
  std::shared_ptr<const EndpointSet> set_;
  Snapshot snapshot_;
  double now_ms_ = 0, scrape_due_ms_ = 0;
  DecisionRecord record_;
  ScheduleOutcome outcome_;
  std::unordered_map<uint64_t, std::unique_ptr<Live>> live_;
  std::vector<SimOutcome> outcomes_;
};

}  // namespace llmd::sched
