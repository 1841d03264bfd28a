#include "gateway/doors/rate_limiter.h"

#include <algorithm>
#include <charconv>

namespace llmd::doors {
namespace {

constexpr int64_t kMinute = Duration(std::chrono::minutes(1)).count();
constexpr int64_t kMostDebt = Duration(std::chrono::hours(1)).count();

// The time in which `amount` flows in, rounded down, so that a whole minute's worth fits a minute.
int64_t TimeOf(int64_t amount, int64_t limit) {
  const __int128 time = static_cast<__int128>(amount) * kMinute / limit;
  return time > kMostDebt ? kMostDebt : static_cast<int64_t>(time);
}

int64_t AmountIn(int64_t time, int64_t limit) {
  return static_cast<int64_t>(static_cast<__int128>(time) * limit / kMinute);
}

int64_t Nanos(TimePoint time) {
  return time.time_since_epoch().count();
}

}  // namespace

BudgetState MinuteBudget::StateAt(int64_t full_at, TimePoint now, int64_t limit) const {
  BudgetState out;
  out.limit = limit;
  const int64_t used = std::max<int64_t>(0, full_at - Nanos(now));
  out.remaining = AmountIn(std::max<int64_t>(0, kMinute - used), limit);
  out.reset = Duration(used);
  return out;
}

BudgetState MinuteBudget::Take(int64_t amount, TimePoint now) {
  const int64_t limit = this->limit();
  if (limit <= 0) return {};
  const int64_t cost = std::min(kMinute, TimeOf(std::max<int64_t>(0, amount), limit));
  const int64_t at = Nanos(now);
  int64_t before = full_at_.load(std::memory_order_relaxed);
  while (true) {
    const int64_t after = std::max(before, at) + cost;
    if (after - at > kMinute) {
      BudgetState out = StateAt(std::max(before, at), now, limit);
      out.allowed = false;
      out.retry_after = Duration(after - at - kMinute);
      return out;
    }
    if (full_at_.compare_exchange_weak(before, after, std::memory_order_relaxed))
      return StateAt(after, now, limit);
  }
}

void MinuteBudget::Adjust(int64_t amount, TimePoint now) {
  const int64_t limit = this->limit();
  if (limit <= 0 || amount == 0) return;
  const bool back = amount < 0;
  const int64_t time = TimeOf(back ? -std::max(amount, -INT64_MAX) : amount, limit);
  const int64_t at = Nanos(now);
  int64_t before = full_at_.load(std::memory_order_relaxed);
  int64_t after;
  do {
    // What flowed in meanwhile needs no giving back.
    after = back ? std::max(before, at) - time : std::max(before, at) + time;
    after = std::clamp(after, at, at + kMostDebt);
  } while (!full_at_.compare_exchange_weak(before, after, std::memory_order_relaxed));
}

BudgetState MinuteBudget::Look(TimePoint now) const {
  const int64_t limit = this->limit();
  if (limit <= 0) return {};
  return StateAt(full_at_.load(std::memory_order_relaxed), now, limit);
}

std::shared_ptr<KeyBudget> RateLimiter::BudgetOf(const std::string& key_id, int64_t requests,
                                                 int64_t tokens) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<KeyBudget>& budget = budgets_[key_id];
  if (!budget) budget = std::make_shared<KeyBudget>();
  budget->requests.SetLimit(requests);
  budget->tokens.SetLimit(tokens);
  return budget;
}

void RateLimiter::ForgetUnused() {
  const std::lock_guard lock(mutex_);
  std::erase_if(budgets_, [](const auto& entry) { return entry.second.use_count() == 1; });
}

size_t RateLimiter::size() const {
  const std::lock_guard lock(mutex_);
  return budgets_.size();
}

char* WriteDuration(char* out, Duration duration) {
  char* const end = out + 24;
  const int64_t nanos = std::max<int64_t>(0, duration.count());
  int64_t millis = nanos / 1'000'000 + (nanos % 1'000'000 != 0 ? 1 : 0);
  const auto number = [&](int64_t n) { out = std::to_chars(out, end, n).ptr; };
  if (millis > 0 && millis < 1000) {
    number(millis);
    *out++ = 'm';
    *out++ = 's';
    return out;
  }
  if (millis >= 60'000) {
    number(millis / 60'000);
    *out++ = 'm';
    millis %= 60'000;
  }
  number(millis / 1000);
  if (const int64_t rest = millis % 1000; rest != 0) {
    *out++ = '.';
    for (int64_t left = rest, digit = 100; left != 0; left %= digit, digit /= 10)
      *out++ = static_cast<char>('0' + left / digit);
  }
  *out++ = 's';
  return out;
}

}  // namespace llmd::doors
