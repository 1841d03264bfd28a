// Requests and tokens a minute, for each key, counted in this process. A budget is a bucket that
// holds a minute's worth and fills evenly, kept as the one moment at which it will be full again
// (the generic cell rate algorithm, ITU-T I.371): an atomic number, no lock, no timer.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "llmd/clock.h"

namespace llmd::doors {

// How a budget stands. Durations are never negative.
struct BudgetState {
  bool allowed = true;
  int64_t limit = 0;       // a minute; 0 = no bound, the rest means nothing
  int64_t remaining = 0;   // at once, now
  Duration retry_after{};  // when what was asked for would be allowed
  Duration reset{};        // when the budget is full again
};

// Thread-safe.
class MinuteBudget {
 public:
  // 0 = no bound. What was used stays used, in proportion.
  void SetLimit(int64_t per_minute) { limit_.store(per_minute, std::memory_order_relaxed); }
  int64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  // Takes `amount`, or nothing. More than a whole minute's worth counts as that: it is allowed when
  // the budget is full.
  BudgetState Take(int64_t amount, TimePoint now);
  // Gives back (negative) or charges `amount` that was not asked for; a charge may put the budget
  // in debt, by at most an hour's worth.
  void Adjust(int64_t amount, TimePoint now);
  BudgetState Look(TimePoint now) const;

 private:
  BudgetState StateAt(int64_t full_at, TimePoint now, int64_t limit) const;

  std::atomic<int64_t> limit_{0};
  std::atomic<int64_t> full_at_{0};  // nanoseconds of the clock
};

struct KeyBudget {
  MinuteBudget requests, tokens;
};

// The budgets of all keys by their ids; they survive reloads of the file of keys. Thread-safe; no
// call on the way of a request. As many as the file has keys.
class RateLimiter {
 public:
  // Makes it, or sets its limits.
  std::shared_ptr<KeyBudget> BudgetOf(const std::string& key_id, int64_t requests, int64_t tokens);
  // Forgets all but those whose users hold them.
  void ForgetUnused();
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<KeyBudget>, std::less<>> budgets_;  // guarded by mutex_
};

// Appends a duration as OpenAI's headers have it: "0s", "20ms", "1.5s", "6m0s". Rounded up to
// milliseconds. `out` has room for 24 bytes; gives the end.
char* WriteDuration(char* out, Duration duration);

}  // namespace llmd::doors
