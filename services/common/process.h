// What every llmd process does the same way: logs to stdout, waits for SIGTERM or SIGINT, drains,
// exits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/log.h"
#include "llmd/log_fd.h"
#include "llmd/metrics.h"

namespace llmd::services {

// Where the process's log goes: JSON lines on stdout, which never make anybody wait.
std::shared_ptr<FdLog> StdoutLog();
// The process's logger. `verbosity` as -v: 2 default, 3 verbose, 4 debug, 5 trace.
Logger MakeLogger(std::shared_ptr<FdLog> log, int verbosity);
// Blocks SIGINT/SIGTERM/SIGHUP in this thread and those it starts later; ignores SIGPIPE. Call
// first in main.
void BlockSignals();
// The counter llmd_log_lines_dropped_total, as long as the result is held.
[[nodiscard]] std::shared_ptr<const void> AddLogMetrics(MetricsRegistry& metrics,
                                                        std::shared_ptr<const FdLog> log);
// Raises the limit of open descriptors to the hard limit, logs what it is and gives it; 0 = not
// known.
uint64_t RaiseDescriptorLimit(const Logger& logger);
// For processes that pass large bodies through: few allocation arenas, and blocks of the bodies'
// size stay with the process instead of being mapped, cleared and unmapped for each. Call before
// the first thread.
void KeepBodyMemory();
// Waits for SIGINT or SIGTERM and returns its number; a second one during the drain ends the
// process at once. `on_hup` runs for each SIGHUP.
int WaitForSignal(const std::function<void()>& on_hup = {});
// Writes "error: …" to stderr and gives 1, for `return Fail(status)` in main.
int Fail(const class ::llmd::Status& status);
// The gauge llm_d_epp_info{commit, build_ref}: 1.
void AddBuildInfo(MetricsRegistry& metrics);

}  // namespace llmd::services
