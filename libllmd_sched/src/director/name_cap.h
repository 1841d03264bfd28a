// Client-chosen names as labels of metrics, bounded.
#pragma once

#include <mutex>
#include <set>
#include <string>

namespace llmd::sched {

// Names as labels: the first 1,000 of a kind, then "other". Thread-safe.
class NameCap {
 public:
  static constexpr size_t kMaxNames = 1000;
  std::string Fold(const std::string& name);
  // Never folded from now on, besides those that are not folded already.
  void Keep(std::set<std::string> names);

 private:
  std::mutex mutex_;
  std::set<std::string> seen_, kept_;  // guarded by mutex_
};

}  // namespace llmd::sched
