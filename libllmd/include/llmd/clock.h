// Time as a dependency: everything that waits or stamps takes a Clock&, so that tests and the
// simulator own time.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace llmd {

using Duration = std::chrono::nanoseconds;
// Monotonic time since an arbitrary start.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; for durations and deadlines.
  virtual TimePoint Now() const = 0;
  // Nanoseconds since the Unix epoch; for stamps that leave the process.
  virtual int64_t UnixNanos() const = 0;
};

// The machine's clocks. Stateless; the reference is valid for the life of the process.
const Clock& SystemClock();

// A clock that moves only when told to. Thread-safe.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(int64_t unix_nanos = 1'700'000'000'000'000'000) : unix_start_(unix_nanos) {}
  TimePoint Now() const override {
    return TimePoint(Duration(elapsed_.load(std::memory_order_acquire)));
  }
  int64_t UnixNanos() const override {
    return unix_start_ + elapsed_.load(std::memory_order_acquire);
  }
  void Advance(Duration by) { elapsed_.fetch_add(by.count(), std::memory_order_acq_rel); }

 private:
  const int64_t unix_start_;
  std::atomic<int64_t> elapsed_{0};
};

}  // namespace llmd
