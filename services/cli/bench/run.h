// A whole run: its loops, the line that tells how far it is, the signal that ends it early, and the
// CPU of the processes it watches.
#pragma once

#include <ctime>
#include <string>
#include <vector>

#include "cli/bench/loop.h"

namespace llmd::bench {

// The CPU of one process, of all its threads.
struct WatchedUse {
  std::string name;
  int64_t pid = 0;
  bool gone = false;     // it was not there at the start, or not at the end
  double cpu_s = 0;      // from the end of the warm-up to the end of the run
  double elapsed_s = 0;  // the same stretch on the wall
};

struct Result {
  int signal = 0;        // that ended it early; 0 = it ran to its end
  double elapsed_s = 0;  // on the wall, the warm-up included
  Tally total;
  std::vector<Tally> stages, tenants;  // empty when there is one stage, or no tenants
  Series series;
  uint64_t warmup_requests = 0, reconnects = 0, connections = 0, most_in_flight = 0;
  double cpu_user_s = 0, cpu_system_s = 0;
  double busiest_loop = 0;  // CPU over wall of the loop that worked most
  std::vector<WatchedUse> watched;
};

// `options` complete, the model known. Signals must be blocked (services::BlockSignals); SIGINT or
// SIGTERM ends the run early, and a second one the process. UNAVAILABLE: a target's name does not
// resolve. INVALID_ARGUMENT: TLS files that cannot be read.
StatusOr<Result> RunBench(const Options& options, const Workload& workload, const Trace* trace);

}  // namespace llmd::bench
