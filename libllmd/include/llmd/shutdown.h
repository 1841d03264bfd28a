// The one-way switch from serving to draining, and the steps that belong to it.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "llmd/clock.h"

namespace llmd {

// Thread-safe.
class Shutdown {
 public:
  // A step to run when the shutdown begins, with the time by which it should be done. Steps run one
  // after another, the last added first, as destructors do. Added after the beginning, a step runs
  // at once in the caller's thread.
  void AddStep(std::string name, std::function<void(TimePoint deadline)> step);

  // Runs the steps in this thread, once; later calls give at once. `grace` is the time for all of
  // them together, from now.
  void Begin(Duration grace);
  bool begun() const;
  // Waits until Begin was called; false when that did not happen within `timeout`.
  bool WaitFor(Duration timeout) const;
  // The names of the steps that were still running at the deadline.
  std::vector<std::string> LateSteps() const;

 private:
  struct Step {
    std::string name;
    std::function<void(TimePoint)> run;
  };
  void Run(const Step& step, TimePoint deadline);

  mutable std::mutex mutex_;
  mutable std::condition_variable begun_changed_;
  // Guarded by mutex_:
  std::vector<Step> steps_;
  std::vector<std::string> late_;
  bool begun_ = false;
  TimePoint deadline_{};
};

}  // namespace llmd
