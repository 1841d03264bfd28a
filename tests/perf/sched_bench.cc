// Decision latency and allocations of the scheduler alone: 10, 100 and 1,000 endpoints × 5 scorers.
// Prints the real picker's figures beside (llm-d-router: p50 60 µs at 10 endpoints, 160
// µs at 100, p99 1–4 ms).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "config/graph.h"
#include "count_allocations.h"
#include "llmd/sched/config_loader.h"
#include "pass/scheduling_pass.h"
#include "trace/record.h"

namespace llmd::sched {
namespace {

constexpr char kYaml[] = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: decode-filter}, {type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer},
          {type: running-requests-size-scorer}, {type: load-aware-scorer}]
)";

Snapshot MakeSnapshot(size_t n) {
  Snapshot s;
  auto set = std::make_shared<EndpointSet>();
  for (size_t i = 0; i < n; ++i) {
    auto info = std::make_shared<EndpointInfo>();
    info->name = "e" + std::to_string(i);
    info->address = "10.0.0.1";
    info->port = static_cast<uint16_t>(1000 + i);
    set->Add(info, static_cast<uint32_t>(i));
    auto m = std::make_shared<EndpointMetrics>();
    m->waiting = static_cast<double>(i * 7 % 13);
    m->kv_usage = static_cast<double>(i * 3 % 10) / 10;
    m->ever = true;
    s.Add(m);
  }
  s.set = set;
  return s;
}

// `recorded`: keeps the decision for those who ask later, as the picker does unless told otherwise.
void Run(size_t endpoints, const char* real, bool recorded = true) {
  auto graph = LoadGraph(kYaml, {});
  if (!graph.ok()) std::abort();
  const Snapshot snapshot = MakeSnapshot(endpoints);
  const std::string body = R"({"model":"m","prompt":")" + std::string(300, 'x') + "\"}";
  const HeaderList headers;
  RequestContext request;
  DecisionRecord record;
  ScheduleOutcome outcome;
  DecisionRing ring(4096, 8 << 20);
  std::vector<double> us;
  size_t allocations = 0;
  constexpr int kWarm = 20'000, kRuns = 50'000;
  us.reserve(kRuns);
  for (int i = 0; i < kWarm + kRuns; ++i) {
    request.Reset((*graph)->attribute_count);
    request.id = static_cast<uint64_t>(i);
    request.request_id = "r" + std::to_string(i % 4096);
    request.path = "/v1/completions";
    request.headers = &headers;
    request.body = body;
    request.AllEligible(snapshot.size());
    request.random = static_cast<uint64_t>(i);
    if (!(*graph)->FindParser(request.path)->Parse(request).ok()) std::abort();
    request.target_model = request.model;
    const size_t before = g_allocations.load(std::memory_order_relaxed);
    const auto start = std::chrono::steady_clock::now();
    record.Reset();
    record.names = (*graph)->names;
    if (recorded) record.SetEndpoints(snapshot, {});
    record.request_id = request.request_id;
    SchedulingPass pass(**graph, request, snapshot, record);
    pass.Produce();
    pass.Schedule(outcome);
    if (recorded) ring.Swap(record);
    const auto took = std::chrono::steady_clock::now() - start;
    if (i < kWarm) continue;
    us.push_back(std::chrono::duration<double, std::micro>(took).count());
    allocations += g_allocations.load(std::memory_order_relaxed) - before;
  }
  std::sort(us.begin(), us.end());
  std::printf(
      "%5zu endpoints x 5 scorers%s: p50 %7.2f us  p99 %7.2f us  allocations/decision %.3f  (real: "
      "%s)\n",
      endpoints, recorded ? "" : ", not recorded", us[us.size() / 2], us[us.size() * 99 / 100],
      static_cast<double>(allocations) / kRuns, real);
}

struct LongBody {
  const char *kind, *path;
  std::string begin, piece, end;  // the piece is repeated
};

// Parse, tokenise, hash, schedule and remember one long body after another, no two alike:
// everything but the wire.
void RunLong(size_t bytes, const LongBody& shape) {
  auto graph = LoadGraph(kYaml, {});
  if (!graph.ok()) std::abort();
  const Snapshot snapshot = MakeSnapshot(100);
  std::string body = shape.begin;
  const size_t number_at = body.find("00000");  // tells the bodies apart
  while (body.size() < bytes) body += shape.piece;
  body += shape.end;
  const HeaderList headers;
  HeaderList set_headers;
  RequestContext request;
  DecisionRecord record;
  ScheduleOutcome outcome;
  std::vector<double> us;
  for (int i = 0; i < 500; ++i) {
    const std::string number = std::to_string(10'000 + i);
    body.replace(number_at, number.size(), number);
    const auto start = std::chrono::steady_clock::now();
    request.Reset((*graph)->attribute_count);
    request.path = shape.path;
    request.headers = &headers;
    request.body = body;
    request.AllEligible(snapshot.size());
    if (!(*graph)->FindParser(request.path)->Parse(request).ok()) std::abort();
    request.target_model = request.model;
    record.Reset();
    SchedulingPass pass(**graph, request, snapshot, record);
    pass.Produce();
    pass.Schedule(outcome);
    for (PreRequestHook* hook : (*graph)->pre_request)
      hook->PreRequest(request, snapshot, outcome, set_headers);
    set_headers.clear();
    us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
                     .count());
  }
  std::sort(us.begin(), us.end());
  std::printf("%zu KB body, %s: p50 %.0f us  p99 %.0f us  (real: 12-17 ms CPU)\n",
              body.size() / 1000, shape.kind, us[us.size() / 2], us[us.size() * 99 / 100]);
}

}  // namespace
}  // namespace llmd::sched

int main() {
  llmd::sched::Run(10, "p50 60 us");
  llmd::sched::Run(100, "p50 160 us, p99 1-4 ms");
  llmd::sched::Run(1000, "not measured");
  for (const size_t endpoints : {10, 100}) llmd::sched::Run(endpoints, "no record", false);
  const char* const chat = "/v1/chat/completions";
  const std::string begin = R"({"model":"m","messages":[{"role":"user","content":"00000 )",
                    end = R"("}]})";
  for (const llmd::sched::LongBody& shape : std::vector<llmd::sched::LongBody>{
           {"plain text", chat, begin, "some words of plain text. ", end},
           {"text with escapes", chat, begin, R"(some words of \"text\"\n)", end},
           {"text beyond ASCII", chat, begin, "長い文章の言葉、\\n", end},
           {"many messages", chat, begin,
            R"( and an answer."},{"role":"assistant","content":"A question of some words)", end},
           {"token ids", "/v1/completions", R"({"model":"m","prompt":[00000)", ",30123", "]}"}})
    llmd::sched::RunLong(450'000, shape);
  return 0;
}
