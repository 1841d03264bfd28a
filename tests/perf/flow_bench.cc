// What flow control costs beside the scheduling itself: one arrival plus one dispatch plus one end,
// while so many requests wait, in nanoseconds and allocations; and how fast a backlog drains.
// llm-d-router's own loop dispatches one request a millisecond (its flow control processor).
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "count_allocations.h"
#include "flow/controller.h"
#include "llmd/sched/config_loader.h"

namespace llmd::sched {
namespace {

constexpr size_t kFlows = 100;

std::shared_ptr<Graph> Load(const std::string& fairness) {
  auto graph = LoadGraph(
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
      "featureGates: [flowControl]\nplugins: [{type: queue-scorer}, {type: " +
          fairness +
          "}]\n"
          "flowControl: {defaultPriorityBand: {maxRequests: 1M, fairnessPolicyRef: " +
          fairness + "}}\n",
      {});
  if (!graph.ok()) std::abort();
  return *graph;
}

// A pool with a fixed number of places; nobody but this thread uses it.
class Pool {
 public:
  explicit Pool(const std::string& fairness)
      : flow_(Load(fairness), SystemClock(), metrics_, "pool",
              FlowHooks{.load =
                            [this] {
                              const double s = busy_ < places_ ? 0 : 1;
                              return PoolLoad{.prefill = 0, .decode = s, .effective = s};
                            },
                        .empty = [] { return false; }}) {
    for (size_t i = 0; i < kFlows; ++i) ids_.push_back("tenant-" + std::to_string(i));
  }
  void Ask() {
    flow_.Enqueue({.flow = ids_[next_++ % kFlows],
                   .model = "m",
                   .target_model = "m",
                   .bytes = 300,
                   .prompt_tokens = static_cast<double>(next_ % 1000),
                   .resume = [this](const FlowResult& r) {
                     ++busy_;
                     ticket_ = r.ticket;
                   }});
  }
  // The running request ends and the next one takes its place.
  void Turn() {
    --busy_;
    flow_.Complete(ticket_, {.prompt_tokens = 100, .output_tokens = 100, .known = true});
  }
  void Open(size_t places) {
    places_ = places;
    flow_.Pump();
  }
  size_t queued() const { return flow_.size(); }

 private:
  MetricsRegistry metrics_;
  size_t busy_ = 0, places_ = 1, next_ = 0;
  uint64_t ticket_ = 0;
  std::vector<std::string> ids_;
  FlowController flow_;
};

double Nanos(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - since).count();
}

void Cycle(const std::string& fairness, size_t queued) {
  Pool pool(fairness);
  for (size_t i = 0; i < queued + 1; ++i) pool.Ask();
  constexpr int kWarm = 20'000, kRuns = 200'000;
  for (int i = 0; i < kWarm; ++i) {
    pool.Ask();
    pool.Turn();
  }
  const size_t before = g_allocations.load(std::memory_order_relaxed);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) {
    pool.Ask();
    pool.Turn();
  }
  const double ns = Nanos(start) / kRuns;
  const double allocations =
      static_cast<double>(g_allocations.load(std::memory_order_relaxed) - before) / kRuns;
  std::printf("%-40s %6zu queued: %7.0f ns a request  allocations %.3f\n", fairness.c_str(),
              pool.queued(), ns, allocations);
}

void Drain(const std::string& fairness) {
  Pool pool(fairness);
  constexpr size_t kBacklog = 10'000;
  for (size_t i = 0; i < kBacklog + 1; ++i) pool.Ask();
  const auto start = std::chrono::steady_clock::now();
  pool.Open(kBacklog + 1);
  std::printf("%-40s drains %zu at %.0f a second  (upstream: about 1000)\n", fairness.c_str(),
              kBacklog, kBacklog / (Nanos(start) * 1e-9));
}

}  // namespace
}  // namespace llmd::sched

int main() {
  for (const char* fairness : {"global-strict-fairness-policy", "round-robin-fairness-policy",
                               "deficit-round-robin-fairness-policy",
                               "virtual-token-counter-fairness-policy", "program-aware-fairness"}) {
    for (size_t queued : {1, 100, 10'000}) llmd::sched::Cycle(fairness, queued);
    llmd::sched::Drain(fairness);
  }
  return 0;
}
