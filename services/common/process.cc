#include "common/process.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "llmd/status.h"

namespace llmd::services {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

std::shared_ptr<FdLog> StdoutLog() {
  return FdLog::Create(STDOUT_FILENO);
}

Logger MakeLogger(std::shared_ptr<FdLog> log, int verbosity) {
  return {std::move(log), static_cast<LogLevel>(verbosity)};
}

void BlockSignals() {
  sigset_t set = StopSignals();
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

std::shared_ptr<const void> AddLogMetrics(MetricsRegistry& metrics,
                                          std::shared_ptr<const FdLog> log) {
  return metrics.AddCounterCollector(
      "llmd_log_lines_dropped_total", "Log lines lost because nobody read them in time.",
      [log = std::move(log)](const MetricsRegistry::GaugeEmit& emit) {
        const Labels none;
        emit(none, static_cast<double>(log->dropped()));
      });
}

uint64_t RaiseDescriptorLimit(const Logger& logger) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (before != limit.rlim_max && setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  logger.Info("descriptor limit", {{"limit", static_cast<uint64_t>(limit.rlim_cur)},
                                   {"before", static_cast<uint64_t>(before)}});
  return limit.rlim_cur;
}

void KeepBodyMemory() {
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

int WaitForSignal(const std::function<void()>& on_hup) {
  sigset_t set = StopSignals();
  sigaddset(&set, SIGHUP);
  while (true) {
    int number = 0;
    if (sigwait(&set, &number) != 0) continue;
    if (number == SIGHUP) {
      if (on_hup) on_hup();
      continue;
    }
    // From here on a second one takes its default action, in this thread, at once.
    const sigset_t stop = StopSignals();
    pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
    return number;
  }
}

void AddBuildInfo(MetricsRegistry& metrics) {
  metrics
      .AddGauge("llm_d_epp_info", "What runs here",
                {{"commit", LLMD_COMMIT}, {"build_ref", "v" LLMD_VERSION}})
      .Set(1);
}

int Fail(const Status& status) {
  std::fprintf(stderr, "error: %s\n", status.message().c_str());
  return 1;
}

}  // namespace llmd::services
