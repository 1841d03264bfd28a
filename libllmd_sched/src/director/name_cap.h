// Client-chosen names as labels of metrics and keys of maps, bounded in number and in bytes.
#pragma once

#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace llmd::sched {

constexpr size_t kMaxNameBytes = 128;
// Of request ids as the log, the ring of decisions and traces keep them.
constexpr size_t kMaxRequestIdBytes = 256;

// A text as it is, or, above `max_bytes`, its beginning cut between two characters, '~' and 16
// digits of a hash of the whole: at most `max_bytes`, and two long texts stay two. `max_bytes` is
// at least 32.
std::string BoundedName(std::string_view text, size_t max_bytes = kMaxNameBytes);

// Names as labels: the first 1,000 of a kind, each of at most kMaxNameBytes, then "other".
// Thread-safe.
class NameCap {
 public:
  static constexpr size_t kMaxNames = 1000;
  std::string Fold(std::string_view name);
  // Never folded from now on, besides those that are not folded already.
  void Keep(const std::set<std::string>& names);

 private:
  std::mutex mutex_;
  std::set<std::string> seen_, kept_;  // guarded by mutex_
};

}  // namespace llmd::sched
