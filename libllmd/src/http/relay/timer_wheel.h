// Deadlines of one loop, kept coarsely: a timer fires in the tick after its time. Moving a deadline
// back, as every message on a busy connection does, costs two stores. Loop thread only.
#pragma once

#include <array>
#include <cstdint>

#include "llmd/clock.h"

namespace llmd::relay {

class TimerWheel;

// Embedded in what has a deadline; one deadline at a time.
class Timer {
 public:
  using Fire = void (*)(void* owner);
  Timer(Fire fire, void* owner) : fire_(fire), owner_(owner) {}
  ~Timer() { Unlink(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  TimePoint due() const { return due_; }
  bool set() const { return due_ != TimePoint::max(); }

 private:
  friend class TimerWheel;
  void Unlink();
  const Fire fire_;
  void* const owner_;
  TimePoint due_ = TimePoint::max();
  uint64_t tick_ = 0;  // where it is linked
  Timer *previous_ = nullptr, *next_ = nullptr;
  Timer** head_ = nullptr;  // of its slot; null = not linked
};

class TimerWheel {
 public:
  static constexpr int kTickBits = 24;  // 16.8 ms
  explicit TimerWheel(TimePoint now) : tick_(TickOf(now)) {}

  void Set(Timer& timer, TimePoint due);
  // A cleared timer stays linked until its old time, when it is passed over.
  void Clear(Timer& timer) { timer.due_ = TimePoint::max(); }
  // Fires what is due.
  void Advance(TimePoint now);
  // When to call Advance next; max = no timer is linked.
  TimePoint Next() const;

 private:
  static constexpr size_t kSlots = 1024;
  static uint64_t TickOf(TimePoint t) {
    return static_cast<uint64_t>(t.time_since_epoch().count()) >> kTickBits;
  }
  void Link(Timer& timer);
  void RunSlot(Timer** slot, TimePoint now);

  std::array<Timer*, kSlots> slots_{};
  std::array<uint64_t, kSlots / 64> used_{};  // slots with timers, or that had some
  uint64_t tick_;                             // all slots up to and with this one have been run
};

}  // namespace llmd::relay
