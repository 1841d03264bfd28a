// What a user of the library pays for one decision: a 1 KB chat body, prefix, queue, KV, LoRA and
// session scorers, 100 endpoints, prompts already seen. Written against the public headers only,
// and also against those from before prepared sets, so that an older tree can be measured beside.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "count_allocations.h"
#include "llmd/sched/director.h"
#include "llmd/sched/scheduler.h"

#if __has_include("llmd/sched/ledger.h")
#define LLMD_HAS_PREPARED_SETS
#endif

namespace llmd::sched {
namespace {

// Rows whose names hold this are measured; "" = all.
const char* g_wanted = "";

constexpr int kPrompts = 64, kWarm = 2'000, kRuns = 20'000;

constexpr char kYaml[] = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: openai-parser}, {type: prefix-cache-scorer}, {type: queue-scorer}, {type: kv-cache-utilization-scorer},
          {type: lora-affinity-scorer}, {type: session-affinity-scorer}, {type: max-score-picker}%s]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: prefix-cache-scorer, weight: 3}, {pluginRef: queue-scorer}, {pluginRef: kv-cache-utilization-scorer},
            {pluginRef: lora-affinity-scorer}, {pluginRef: session-affinity-scorer}, {pluginRef: max-score-picker}]
%s)";

std::string Yaml(const char* plugins = "", const char* more = "") {
  char text[4096];
  std::snprintf(text, sizeof(text), kYaml, plugins, more);
  return text;
}

std::vector<EndpointState> Endpoints(size_t n) {
  std::vector<EndpointState> out(n);
  for (size_t i = 0; i < n; ++i) {
    out[i].info.name = "e" + std::to_string(i);
    out[i].info.address = "10.0.0." + std::to_string(i % 250);
    out[i].info.port = static_cast<uint16_t>(8000 + i);
    out[i].metrics.waiting = static_cast<double>(i * 7 % 13);
    out[i].metrics.running = static_cast<double>(i * 5 % 11);
    out[i].metrics.kv_usage = static_cast<double>(i * 3 % 10) / 10;
    out[i].metrics.max_active_models = 4;
    out[i].metrics.ever = true;
  }
  return out;
}

std::vector<std::string> Bodies() {
  std::vector<std::string> out;
  for (int i = 0; i < kPrompts; ++i) {
    std::string text = "Question " + std::to_string(i * 7919) + ": ";
    while (text.size() < 900) text += "the harbour lies to the north of town and ";
    out.push_back(R"({"model":"m","messages":[{"role":"user","content":")" + text + R"("}]})");
  }
  return out;
}

template <typename F>
void Row(const char* name, const char* goal, const F& run) {
  if (std::strstr(name, g_wanted) == nullptr) return;
  for (int i = 0; i < kWarm; ++i) run(i);
  std::vector<double> us(kRuns);
  const size_t before = g_allocations.load();
  for (int i = 0; i < kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run(i);
    us[static_cast<size_t>(i)] =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  }
  const double allocations = static_cast<double>(g_allocations.load() - before) / kRuns;
  std::sort(us.begin(), us.end());
  std::printf("%-52s %8.2f %8.2f %10.1f   %s\n", name, us[kRuns / 2], us[kRuns / 100 * 99],
              allocations, goal);
}

template <typename T>
T Must(StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "library_bench: %s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return std::move(*value);
}

void BenchScheduler(const std::vector<std::string>& bodies) {
  const auto scheduler = Must(Scheduler::FromYaml(Yaml()));
  const std::vector<EndpointState> endpoints = Endpoints(100);
  std::vector<RequestSpec> specs(bodies.size());
  for (size_t i = 0; i < bodies.size(); ++i) {
    specs[i].body = bodies[i];
    specs[i].path = "/v1/chat/completions";
  }
  const auto spec = [&](int i) -> RequestSpec& {
    return specs[static_cast<size_t>(i) % specs.size()];
  };
#ifdef LLMD_HAS_PREPARED_SETS
  const auto set = Must(scheduler->Prepare(endpoints));
  for (const auto& [recording, name, goal] :
       {std::tuple{Recording::kRecord, "Scheduler, prepared set, recorded", "goal 5"},
        std::tuple{Recording::kNone, "Scheduler, prepared set, not recorded", "goal 4"}}) {
    for (RequestSpec& s : specs) s.recording = recording;
    Row(name, goal, [&](int i) { Must(scheduler->Schedule(spec(i), *set)); });
  }
  for (RequestSpec& s : specs) s.recording = Recording::kTrace;
#endif
  Row("Scheduler, list of endpoints, with trace", "",
      [&](int i) { Must(scheduler->Schedule(spec(i), endpoints)); });
}

class StandingClock final : public Clock {
 public:
  TimePoint Now() const override { return now_; }
  int64_t UnixNanos() const override { return 1'700'000'000'000'000'000; }

 private:
  const TimePoint now_ = TimePoint(std::chrono::seconds(1000));
};

void BenchDirector(const std::vector<std::string>& bodies) {
  DirectorOptions options;
  options.attach_trace = false;
  options.seed = 7;
  MetricsRegistry metrics;
  const StandingClock clock;
#ifdef LLMD_HAS_PREPARED_SETS
  options.config_yaml = Yaml();
  options.manual = true;
  const auto director = Must(Director::Create(options, nullptr, Logger(), metrics, clock));
  std::vector<EndpointInfo> members;
  for (const EndpointState& e : Endpoints(100)) members.push_back(e.info);
  if (Status s = director->SetEndpoints(members); !s.ok()) std::exit(1);
  for (const EndpointState& e : Endpoints(100)) {
    if (Status s = director->SetMetrics(e.info.FullName(), e.metrics); !s.ok()) std::exit(1);
  }
#else
  std::string file = "/tmp/llmd_library_bench_endpoints.yaml";
  std::string text = "endpoints:\n";
  for (const EndpointState& e : Endpoints(100))
    text += "- {name: " + e.info.name + ", address: " + e.info.address +
            ", port: " + std::to_string(e.info.port) + "}\n";
  std::FILE* out = std::fopen(file.c_str(), "w");
  std::fputs(text.c_str(), out);
  std::fclose(out);
  options.config_yaml = Yaml((", {type: file-discovery, parameters: {path: " + file + "}}").c_str(),
                             "dataLayer: {discovery: {pluginRef: file-discovery}}\n");
  const auto director = Must(Director::Create(options, nullptr, Logger(), metrics, clock));
#endif
  const HeaderList headers = {{":path", "/v1/chat/completions"}};
  std::string none;
#ifdef LLMD_HAS_PREPARED_SETS
  Routing routing;
  Row("Director::RouteNow and end", "goal 6, 0 allocations", [&](int i) {
    RequestInput input;
    input.headers = &headers;
    input.body = bodies[static_cast<size_t>(i) % bodies.size()];
    input.handles_only = true;
    if (!director->RouteNow(std::move(input), routing, nullptr) || !routing.ok) std::exit(1);
    director->OnResponseBody(routing.state, {}, true, &none);
  });
#endif
  Row("Director::Route and end", "", [&](int i) {
    RequestInput input;
    input.headers = &headers;
    input.body = bodies[static_cast<size_t>(i) % bodies.size()];
    director->Route(std::move(input), [&](Routing r) {
      if (!r.ok) std::exit(1);
      director->OnResponseBody(r.state, {}, true, &none);
    });
  });
  director->Stop();
}

}  // namespace
}  // namespace llmd::sched

// usage: library_bench [PART OF A ROW'S NAME]
int main(int argc, char** argv) {
  if (argc > 1) llmd::sched::g_wanted = argv[1];
  std::printf("%-52s %8s %8s %10s\n", "100 endpoints, 1 KB chat", "p50 us", "p99 us", "alloc/call");
  const auto bodies = llmd::sched::Bodies();
  llmd::sched::BenchScheduler(bodies);
  llmd::sched::BenchDirector(bodies);
}
