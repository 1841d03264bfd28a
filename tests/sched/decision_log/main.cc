// decision_log: a seeded run of the scheduler, or of a director in virtual time, that prints its
// decision log, one line a decision. Builds by different compilers must print the same bytes.
//   decision_log [--director] [--seed N] [--decisions N]
#include <charconv>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "decision_log/config.h"
#include "decision_log/director_run.h"
#include "decision_log/world.h"
#include "llmd/sched/decision_log.h"
#include "llmd/sched/scheduler.h"

namespace llmd::sched {
namespace {

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
  const bool director = argc > 1 && std::strcmp(argv[1], "--director") == 0;
  for (int i = director ? 2 : 1; i < argc; i += 2) {
    uint64_t* const target = std::strcmp(argv[i], "--seed") == 0        ? &seed
                             : std::strcmp(argv[i], "--decisions") == 0 ? &decisions
                                                                        : nullptr;
    if (target == nullptr || i + 1 >= argc || !Number(argv[i + 1], *target)) {
      std::fputs("usage: decision_log [--director] [--seed N] [--decisions N]\n", stderr);
      return 2;
    }
  }
  const Status status = director ? RunDirector(seed, decisions) : Run(seed, decisions);
  if (!status.ok()) std::fprintf(stderr, "decision_log: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace llmd::sched

int main(int argc, char** argv) {
  return llmd::sched::Main(argc, argv);
}
