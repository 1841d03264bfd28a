// decision_log: a seeded run of the scheduler that prints its decision log, one JSON line a
// decision. Builds by different compilers must print the same bytes.
//   decision_log [--seed N] [--decisions N]
#include <charconv>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "decision_log/config.h"
#include "llmd/sched/decision_log.h"
#include "llmd/sched/scheduler.h"

namespace llmd::sched {
namespace {

// The world the scheduler sees: endpoints that come, go and change, time, and requests. Every draw
// is a statement of its own, since compilers differ in which argument they evaluate first.
class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kEndpoints; ++i) Join();
  }

  void Step() {
    clock_.Advance(std::chrono::microseconds(100 + Below(30'000)));
    if (Below(50) == 0 && endpoints_.size() > 2)
      endpoints_.erase(endpoints_.begin() + static_cast<ptrdiff_t>(Below(endpoints_.size())));
    if (endpoints_.size() < kEndpoints && Below(40) == 0) Join();
    for (int i = 0; i < 4; ++i) Gauge(endpoints_[Below(endpoints_.size())]);
  }

  RequestSpec Request() {
    RequestSpec out;
    out.model = Below(3) == 0 ? "adapter-" + std::to_string(Below(6)) : "base";
    const uint64_t prefix = Below(40);
    for (uint64_t n = 0; n < 10 + prefix * 7; ++n)
      out.prompt += "prefix " + std::to_string(prefix * 1000 + n) + " ";
    out.prompt += "tail " + std::to_string(Below(5) == 0 ? Below(1 << 30) : Below(30));
    if (Below(2) == 0) out.headers.emplace_back("x-session-id", "s" + std::to_string(Below(60)));
    out.priority = static_cast<int>(Below(3)) - 1;
    out.keep_in_flight = Below(4) != 0;
    return out;
  }

  uint64_t Below(uint64_t bound) { return RandomBelow(random_, bound); }
  const std::vector<EndpointState>& endpoints() const { return endpoints_; }
  const Clock& clock() const { return clock_; }

 private:
  static constexpr size_t kEndpoints = 14;

  // A new endpoint, or an earlier one again under its name.
  void Join() {
    const uint64_t number = Below(2) == 0 ? joined_ : Below(joined_ + 1);
    EndpointState e;
    e.info.name = "e" + std::to_string(number);
    for (const EndpointState& other : endpoints_) {
      if (other.info.name == e.info.name) e.info.name = "e" + std::to_string(joined_);
    }
    ++joined_;
    e.info.address = "10.0.0." + std::to_string(1 + joined_ % 250);
    e.info.port = 8000;
    const char* const roles[] = {"prefill", "decode", "decode", "prefill-decode"};
    e.info.labels["llm-d.ai/role"] = roles[Below(4)];
    Gauge(e);
    endpoints_.push_back(std::move(e));
  }

  void Gauge(EndpointState& e) {
    EndpointMetrics& m = e.metrics;
    m.ever = true;
    m.updated = clock_.Now();
    m.waiting = static_cast<double>(Below(20));
    m.running = static_cast<double>(Below(64));
    m.kv_usage = RandomUnit(random_);
    m.block_size = 16;
    m.num_blocks = 2000;
    m.max_active_models = 4;
    m.active_models.clear();
    for (uint64_t n = Below(4); n > 0; --n)
      m.active_models.push_back("adapter-" + std::to_string(Below(6)));
  }

  FakeClock clock_;
  uint64_t random_;
  uint64_t joined_ = 0;
  std::vector<EndpointState> endpoints_;
};

Status Run(uint64_t seed, uint64_t decisions) {
  World world(seed);
  LLMD_ASSIGN_OR_RETURN(
      const std::unique_ptr<Scheduler> scheduler,
      Scheduler::FromYaml(kDecisionLogConfig, {.seed = seed, .clock = &world.clock()}));
  std::deque<uint64_t> open;
  for (uint64_t i = 0; i < decisions; ++i) {
    world.Step();
    const RequestSpec request = world.Request();
    LLMD_ASSIGN_OR_RETURN(const Decision decision, scheduler->Schedule(request, world.endpoints()));
    if (decision.ok && request.keep_in_flight) open.push_back(decision.id);
    while (open.size() > 20 + world.Below(60)) {
      const auto at = open.begin() + static_cast<ptrdiff_t>(world.Below(open.size()));
      scheduler->Finish(*at);
      open.erase(at);
    }
    std::string line = ToLogLine(decision.trace);
    for (const auto& [name, value] : decision.set_headers) line += " " + name + "=" + value;
    std::puts(line.c_str());
  }
  return OkStatus();
}

bool Number(const char* text, uint64_t& out) {
  const char* const end = text + std::strlen(text);
  const auto [at, error] = std::from_chars(text, end, out);
  return error == std::errc() && at == end;
}

int Main(int argc, char** argv) {
  uint64_t seed = 7, decisions = 10'000;
  for (int i = 1; i < argc; i += 2) {
    uint64_t* const target = std::strcmp(argv[i], "--seed") == 0        ? &seed
                             : std::strcmp(argv[i], "--decisions") == 0 ? &decisions
                                                                        : nullptr;
    if (target == nullptr || i + 1 >= argc || !Number(argv[i + 1], *target)) {
      std::fputs("usage: decision_log [--seed N] [--decisions N]\n", stderr);
      return 2;
    }
  }
  const Status status = Run(seed, decisions);
  if (!status.ok()) std::fprintf(stderr, "decision_log: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace llmd::sched

int main(int argc, char** argv) {
  return llmd::sched::Main(argc, argv);
}
