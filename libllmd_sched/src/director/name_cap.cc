#include "director/name_cap.h"

namespace llmd::sched {

std::string NameCap::Fold(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (seen_.contains(name) || kept_.contains(name)) return name;
  if (seen_.size() >= kMaxNames) return "other";
  seen_.insert(name);
  return name;
}

void NameCap::Keep(std::set<std::string> names) {
  std::lock_guard lock(mutex_);
  kept_.merge(names);
}

}  // namespace llmd::sched
