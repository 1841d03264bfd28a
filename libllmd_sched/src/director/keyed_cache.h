// Series found again by the texts they are labelled with: a lookup allocates nothing and takes only
// a shared lock.
#pragma once

#include <initializer_list>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace llmd::sched {

// From a list of texts to a T*, which it does not own. Thread-safe. Holds at most kMaxEntries of at
// most kMaxKeyBytes each: what comes later or is longer is made anew each time (clients choose some
// of the texts).
template <typename T>
class KeyedCache {
 public:
  static constexpr size_t kMaxEntries = 1 << 16;
  static constexpr size_t kMaxKeyBytes = 1024;

  // What `make` gave for these texts; it runs without the lock and must give the same object for
  // the same texts.
  template <typename Make>
  T& Of(std::initializer_list<std::string_view> texts, Make make) {
    static thread_local std::string key;
    key.clear();
    for (std::string_view text : texts) key.append(text).push_back('\0');
    {
      std::shared_lock lock(mutex_);
      if (const auto it = map_.find(key); it != map_.end()) return *it->second;
    }
    T& made = make();
    std::unique_lock lock(mutex_);
    if (map_.size() < kMaxEntries && key.size() <= kMaxKeyBytes) map_.emplace(key, &made);
    return made;
  }

 private:
  std::shared_mutex mutex_;
  std::unordered_map<std::string, T*> map_;  // guarded by mutex_
};

}  // namespace llmd::sched
