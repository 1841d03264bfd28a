#include "llmd/shutdown.h"

namespace llmd {

void Shutdown::AddStep(std::string name, std::function<void(TimePoint)> step) {
  Step added{std::move(name), std::move(step)};
  TimePoint deadline;
  {
    const std::lock_guard lock(mutex_);
    if (!begun_) {
      steps_.push_back(std::move(added));
      return;
    }
    deadline = deadline_;
  }
  Run(added, deadline);
}

void Shutdown::Begin(Duration grace) {
  std::vector<Step> steps;
  TimePoint deadline;
  {
    const std::lock_guard lock(mutex_);
    if (begun_) return;
    begun_ = true;
    deadline = deadline_ = SystemClock().Now() + grace;
    steps.swap(steps_);
  }
  begun_changed_.notify_all();
  for (auto it = steps.rbegin(); it != steps.rend(); ++it) Run(*it, deadline);
}

void Shutdown::Run(const Step& step, TimePoint deadline) {
  step.run(deadline);
  if (SystemClock().Now() <= deadline) return;
  const std::lock_guard lock(mutex_);
  late_.push_back(step.name);
}

bool Shutdown::begun() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

bool Shutdown::WaitFor(Duration timeout) const {
  std::unique_lock lock(mutex_);
  return begun_changed_.wait_for(lock, timeout, [this] { return begun_; });
}

std::vector<std::string> Shutdown::LateSteps() const {
  const std::lock_guard lock(mutex_);
  return late_;
}

}  // namespace llmd
