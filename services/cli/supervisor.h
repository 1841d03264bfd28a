// Starts child processes, merges their output line by line behind a prefix, and ends them. Children
// die with their parent (PR_SET_PDEATHSIG), so that a killed `llmd up` leaves nothing behind.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/plan.h"
#include "llmd/clock.h"
#include "llmd/status.h"

namespace llmd::cli {

// Owned by one thread, which calls everything.
class Supervisor {
 public:
  struct Exit {
    std::string name;
    std::string how;  // "exit code 1", "signal 9 (Killed)"
  };
  using LineFn = std::function<void(const ProcessPlan& process, std::string_view line)>;

  explicit Supervisor(LineFn on_line);
  ~Supervisor();  // Stop with no patience

  // NOT_FOUND when the program does not exist.
  Status Start(const ProcessPlan& process);
  // Waits up to `timeout` for output, an exit or a readable `wake_fd` (-1 = none), and handles what
  // came.
  void Poll(Duration timeout, int wake_fd = -1);
  // Children that ended since the last call.
  std::vector<Exit> TakeExits();
  // SIGTERM in reverse order of starting, each group given `patience`, then SIGKILL; output is
  // still delivered.
  void Stop(Duration patience);
  size_t running() const;
  pid_t PidOf(std::string_view name) const;

 private:
  struct Child;
  void ReadOutput(Child& child);
  void Reap();

  LineFn on_line_;
  std::vector<std::unique_ptr<Child>> children_;
  std::vector<Exit> exits_;
};

}  // namespace llmd::cli
