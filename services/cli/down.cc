#include <signal.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "cli/plan.h"
#include "cli/up.h"
#include "common/flags.h"
#include "common/process.h"

namespace llmd::cli {
namespace {

// True while the process runs and is an llmd: a pid from an old run file may belong to somebody
// else by now, and one that ended stays visible until its parent asks for it.
bool IsLlmd(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(in, line)) return false;
  const size_t end = line.rfind(')');  // "PID (name) STATE …"
  return line.find("(llmd)") != std::string::npos && end + 2 < line.size() && line[end + 2] != 'Z';
}

Status Down(const std::string& cluster, Duration patience) {
  LLMD_ASSIGN_OR_RETURN(const json::Value run, ReadRunFile(cluster));
  const pid_t pid = static_cast<pid_t>(run["pid"].AsInt());
  if (pid <= 0 || !IsLlmd(pid))
    return NotFound("cluster '" + cluster + "' is not running any more");
  if (kill(pid, SIGTERM) != 0)
    return ErrnoStatus(errno, "cannot stop process " + std::to_string(pid));
  const TimePoint deadline = SystemClock().Now() + patience;
  while (IsLlmd(pid)) {
    if (SystemClock().Now() > deadline)
      return DeadlineExceeded("process " + std::to_string(pid) + " is still stopping");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return OkStatus();
}

}  // namespace

int RunDown(int argc, const char* const* argv) {
  std::string cluster = "default";
  std::chrono::nanoseconds patience = std::chrono::seconds(60);
  services::FlagSet set("llmd down", "Stops a cluster that llmd up started in the background.");
  set.String("name", &cluster, "name of the cluster");
  set.Duration("timeout", &patience, "how long to wait for it to end");
  const auto outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  if (Status s = Down(cluster, patience); !s.ok()) return services::Fail(s);
  std::printf("stopped %s\n", cluster.c_str());
  return 0;
}

}  // namespace llmd::cli
