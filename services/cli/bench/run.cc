#include "cli/bench/run.h"

#include <pthread.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <thread>

namespace llmd::bench {
namespace {

constexpr Duration kLead = std::chrono::milliseconds(20);  // for the threads to be there

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

// CPU of a process so far; false when there is none of that number, or it is not ours to see.
bool CpuOf(int64_t pid, double* out) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(static_cast<pid_t>(pid), &clock) != 0 ||
      clock_gettime(clock, &time) != 0) {
    return false;
  }
  *out = static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  return true;
}

class Watch {
 public:
  explicit Watch(const std::vector<Watched>& processes) {
    for (const Watched& process : processes) {
      uses_.push_back({.name = process.name, .pid = process.pid});
    }
  }
  void Begin() {
    begun_ = SystemClock().Now();
    for (WatchedUse& use : uses_) use.gone = !CpuOf(use.pid, &use.cpu_s);
  }
  std::vector<WatchedUse> End() {
    const Duration elapsed = SystemClock().Now() - begun_;
    for (WatchedUse& use : uses_) {
      double now = 0;
      use.gone = use.gone || !CpuOf(use.pid, &now);
      use.cpu_s = use.gone ? 0 : now - use.cpu_s;
      use.elapsed_s = std::chrono::duration<double>(elapsed).count();
    }
    return std::move(uses_);
  }

 private:
  TimePoint begun_{};
  std::vector<WatchedUse> uses_;
};

class ProgressLine {
 public:
  explicit ProgressLine(bool shown) : shown_(shown) {}
  void Print(const std::vector<std::unique_ptr<Loop>>& loops, double at_s) {
    if (!shown_ || at_s < last_s_ + 1) return;
    uint64_t sent = 0, completed = 0, failed = 0, in_flight = 0, tokens = 0;
    for (const auto& loop : loops) {
      const Loop::Progress& p = loop->progress();
      sent += p.sent.load(std::memory_order_relaxed);
      completed += p.completed.load(std::memory_order_relaxed);
      failed += p.failed.load(std::memory_order_relaxed);
      in_flight += p.in_flight.load(std::memory_order_relaxed);
      tokens += p.output_tokens.load(std::memory_order_relaxed);
    }
    const double since = at_s - last_s_;
    std::fprintf(
        stderr,
        "\r%7.0f s  sent %llu  done %llu  failed %llu  in flight %llu  %.1f req/s  "
        "%.0f tok/s   ",
        at_s, static_cast<unsigned long long>(sent), static_cast<unsigned long long>(completed),
        static_cast<unsigned long long>(failed), static_cast<unsigned long long>(in_flight),
        static_cast<double>(completed - completed_) / since,
        static_cast<double>(tokens - tokens_) / since);
    std::fflush(stderr);
    last_s_ = at_s;
    completed_ = completed;
    tokens_ = tokens;
  }
  void End() const {
    if (shown_ && last_s_ > 0) std::fputc('\n', stderr);
  }

 private:
  bool shown_;
  double last_s_ = 0;
  uint64_t completed_ = 0, tokens_ = 0;
};

bool AllOver(const std::vector<std::unique_ptr<Loop>>& loops) {
  for (const auto& loop : loops) {
    if (!loop->progress().over.load()) return false;
  }
  return true;
}

// Waits for a signal for at most `wait`; 0 = none came.
int NextSignal(Duration wait) {
  const sigset_t stop = StopSignals();
  const timespec time{.tv_sec = 0, .tv_nsec = wait.count()};
  const int number = sigtimedwait(&stop, nullptr, &time);
  return number > 0 ? number : 0;
}

// The main thread while the loops run. Gives the signal that ended the run, or 0.
int Attend(Run& run, const std::vector<std::unique_ptr<Loop>>& loops, Watch& watch) {
  ProgressLine line(run.options.progress);
  bool warm = false;
  int ended_by = 0;
  while (!AllOver(loops)) {
    // Loops end at any time: a short run is not to wait for this thread.
    const int number = NextSignal(std::chrono::milliseconds(20));
    const Duration at = SystemClock().Now() - run.start;
    if (!warm && at >= run.options.warmup) {
      warm = true;
      watch.Begin();
    }
    line.Print(loops, std::chrono::duration<double>(at).count());
    if (number == 0 || ended_by != 0) continue;
    ended_by = number;
    run.stop = true;
    // A second one takes its default action.
    const sigset_t stop = StopSignals();
    pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
  }
  line.End();
  return ended_by;
}

void AddUp(const std::vector<std::unique_ptr<Loop>>& loops, Result& out) {
  for (const auto& loop : loops) {
    out.total.Merge(loop->total());
    out.series.Merge(loop->series());
    out.stages.resize(loop->stages().size(), Tally(7));
    out.tenants.resize(loop->tenants().size(), Tally(7));
    for (size_t i = 0; i < out.stages.size(); ++i) out.stages[i].Merge(loop->stages()[i]);
    for (size_t i = 0; i < out.tenants.size(); ++i) out.tenants[i].Merge(loop->tenants()[i]);
    out.warmup_requests += loop->warmup_requests();
    out.reconnects += loop->reconnects();
    out.connections += loop->connections_opened();
    out.most_in_flight += loop->most_in_flight();
    const double busy = static_cast<double>(loop->cpu_nanos()) * 1e-9 / out.elapsed_s;
    out.busiest_loop = std::max(out.busiest_loop, busy);
  }
}

void RaiseDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

StatusOr<Result> RunBench(const Options& options, const Workload& workload, const Trace* trace) {
  Run run{.options = options, .workload = workload, .trace = trace};
  for (const http::Url& target : options.targets) {
    LLMD_ASSIGN_OR_RETURN(const Address address, Resolve(target.peer));
    run.addresses.push_back(address);
    if (!target.tls || run.tls) continue;
    LLMD_ASSIGN_OR_RETURN(run.tls, http::TlsContext::CreateClient(options.tls));
  }
  RaiseDescriptors();
  std::vector<std::unique_ptr<Loop>> loops;
  const auto count = static_cast<uint64_t>(options.threads);
  loops.reserve(count);
  for (uint64_t i = 0; i < count; ++i) loops.push_back(std::make_unique<Loop>(run, i, count));
  Watch watch(options.watched);
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  watch.Begin();
  run.start = SystemClock().Now() + kLead;
  std::vector<Status> ends(count);
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] { ends[i] = loops[i]->Go(); });
  }
  Result out;
  out.signal = Attend(run, loops, watch);
  for (std::thread& thread : threads) thread.join();
  out.elapsed_s = std::chrono::duration<double>(SystemClock().Now() - run.start).count();
  getrusage(RUSAGE_SELF, &after);
  for (const Status& end : ends) LLMD_RETURN_IF_ERROR(end);
  out.watched = watch.End();
  out.cpu_user_s = Seconds(after.ru_utime) - Seconds(before.ru_utime);
  out.cpu_system_s = Seconds(after.ru_stime) - Seconds(before.ru_stime);
  AddUp(loops, out);
  return out;
}

}  // namespace llmd::bench
