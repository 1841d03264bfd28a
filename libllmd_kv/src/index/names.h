// Small numbers for names, never taken back. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::kv {

class Names {
 public:
  explicit Names(size_t most) : most_(most) {}
  // The name's number, handed out when it is new; `most` when there are no more.
  size_t NumberOf(std::string_view name) {
    if (const size_t known = Find(name); known < most_) return known;
    std::unique_lock lock(mutex_);
    if (const auto it = numbers_.find(name); it != numbers_.end()) return it->second;
    if (names_.size() == most_) return most_;
    names_.emplace_back(name);
    return numbers_.emplace(name, names_.size() - 1).first->second;
  }
  // The same, without handing one out.
  size_t Find(std::string_view name) const {
    std::shared_lock lock(mutex_);
    const auto it = numbers_.find(name);
    return it == numbers_.end() ? most_ : it->second;
  }
  std::string NameOf(size_t number) const {
    std::shared_lock lock(mutex_);
    return number < names_.size() ? names_[number] : std::string();
  }

 private:
  const size_t most_;
  mutable std::shared_mutex mutex_;
  std::map<std::string, size_t, std::less<>> numbers_;  // guarded by mutex_
  std::vector<std::string> names_;                      // guarded by mutex_
};

}  // namespace llmd::kv
