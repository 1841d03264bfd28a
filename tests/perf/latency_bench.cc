// Predicting and learning, beside the goals: 100 endpoints in less than 20 us, an observation in
// less than 5 us, nothing allocated.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include "config/graph.h"
#include "count_allocations.h"
#include "latency/model.h"
#include "llmd/sched/config_loader.h"

namespace llmd::sched {
namespace {

LatencyFeatures Some(std::mt19937_64& rng) {
  return {.kv_cache_percentage = static_cast<double>(rng() % 100) / 100,
          .input_token_length = static_cast<double>(rng() % 4000),
          .num_request_waiting = static_cast<double>(rng() % 10),
          .num_request_running = static_cast<double>(rng() % 60),
          .num_tokens_generated = static_cast<double>(1 + rng() % 300),
          .prefix_cache_score = static_cast<double>(rng() % 100) / 100,
          .prefill_tokens_in_flight = static_cast<double>(rng() % 9000),
          .decode_tokens_in_flight = static_cast<double>(rng() % 90000)};
}

// Runs `body` many times and prints its median, p99 and allocations.
template <typename F>
void Time(const char* what, const char* goal, int runs, F body) {
  std::vector<double> us;
  us.reserve(static_cast<size_t>(runs));
  for (int i = 0; i < runs / 10; ++i) body();
  const size_t before = g_allocations.load();
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
                     .count());
  }
  const size_t allocations = g_allocations.load() - before;
  std::sort(us.begin(), us.end());
  std::printf("%-46s p50 %6.2f us  p99 %6.2f us  allocations %.3f  (goal: %s)\n", what,
              us[us.size() / 2], us[us.size() * 99 / 100], static_cast<double>(allocations) / runs,
              goal);
}

void BenchModel() {
  latency::LatencyModel model(true);
  std::mt19937_64 rng(1);
  const uint8_t c = model.ClassOf("decode");
  std::vector<LatencyFeatures> features;
  for (int i = 0; i < 100; ++i) features.push_back(Some(rng));
  for (int i = 0; i < 500; ++i) {
    model.LearnTtft(c, Some(rng), 50 + static_cast<double>(rng() % 500));
    model.LearnTpot(c, Some(rng), 5 + static_cast<double>(rng() % 50));
    model.LearnLength(c, 200);
  }
  double sum = 0;
  Time("predict TTFT and TPOT, 100 endpoints", "< 20 us, 0", 20'000, [&] {
    latency::Reader reader(model);
    for (const LatencyFeatures& f : features) sum += reader.Ttft(c, f) + reader.Tpot(c, f);
  });
  size_t next = 0;
  Time("learn one TTFT (class and pool)", "< 5 us, 0", 20'000,
       [&] { model.LearnTtft(c, features[next++ % 100], 100); });
  Time("learn one TPOT (class and pool)", "< 5 us, 0", 20'000,
       [&] { model.LearnTpot(c, features[next++ % 100], 10); });
  if (sum < 0) std::abort();
}

// The producer as a request meets it: features, predictions, headrooms, metrics.
void BenchProducer() {
  auto graph = LoadGraph(
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
      "- {type: predicted-latency-producer, parameters: {streamingMode: true}}\n"
      "- {type: latency-scorer}\n",
      {});
  if (!graph.ok()) std::abort();
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  for (uint32_t i = 0; i < 100; ++i) {
    auto info = std::make_shared<EndpointInfo>();
    info->name = "e" + std::to_string(i);
    set->Add(info, i);
    auto m = std::make_shared<EndpointMetrics>();
    m->running = i % 40;
    m->kv_usage = 0.4;
    m->ever = true;
    snapshot.Add(m);
  }
  snapshot.set = set;
  RequestContext request;
  request.Reset((*graph)->attribute_count);
  request.model = request.target_model = "m";
  request.streaming = true;
  ScheduleOutcome outcome;
  outcome.primary = {3};
  HeaderList headers;
  Producer* producer = nullptr;
  PreRequestHook* sent = nullptr;
  ResponseHook* answered = nullptr;
  for (const auto& p : (*graph)->plugins) {
    if (p->type() != "predicted-latency-producer") continue;
    producer = dynamic_cast<Producer*>(p.get());
    sent = dynamic_cast<PreRequestHook*>(p.get());
    answered = dynamic_cast<ResponseHook*>(p.get());
  }
  ResponseInfo info{.status = 200};
  info.usage.completion_tokens = 100;
  const auto cycle = [&] {
    request.visits.clear();
    request.charges.Reset();
    OpenCharges(request, snapshot, outcome);
    sent->PreRequest(request, snapshot, outcome, headers);
    answered->OnFirstChunk(request, info);
    request.charges.FirstChunk();
    answered->OnEnd(request, info);
    request.charges.End();
  };
  for (int i = 0; i < 200; ++i) cycle();
  Time("producer before scheduling, 100 endpoints", "< 20 us, 0", 20'000, [&] {
    if (!producer->Produce(request, snapshot).ok()) std::abort();
  });
  Time("producer's hooks of one request, all", "< 15 us, 0", 20'000, cycle);
}

}  // namespace
}  // namespace llmd::sched

int main() {
  llmd::sched::BenchModel();
  llmd::sched::BenchProducer();
  return 0;
}
