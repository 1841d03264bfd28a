#include "http/relay/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace llmd::relay {

void Timer::Unlink() {
  if (head_ == nullptr) return;
  (previous_ != nullptr ? previous_->next_ : *head_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  previous_ = next_ = nullptr;
  head_ = nullptr;
}

void TimerWheel::Link(Timer& timer) {
  // Rounded up, so that nothing fires early; beyond the horizon as far as it goes.
  const uint64_t wanted = std::max(TickOf(timer.due_) + 1, tick_ + 1);
  timer.tick_ = std::min(wanted, tick_ + kSlots - 1);
  Timer** const slot = &slots_[timer.tick_ % kSlots];
  timer.head_ = slot;
  timer.previous_ = nullptr;
  timer.next_ = *slot;
  if (timer.next_ != nullptr) timer.next_->previous_ = &timer;
  *slot = &timer;
  used_[timer.tick_ % kSlots / 64] |= uint64_t{1} << (timer.tick_ % 64);
}

void TimerWheel::Set(Timer& timer, TimePoint due) {
  timer.due_ = due;
  if (due == TimePoint::max()) return;
  // Linked at an earlier time: it moves on when that comes.
  if (timer.head_ != nullptr && timer.tick_ <= TickOf(due) + 1) return;
  timer.Unlink();
  Link(timer);
}

void TimerWheel::RunSlot(Timer** slot, TimePoint now) {
  // Taken off first: what fires may set timers, this one too, and destroy others.
  Timer* pending = *slot;
  *slot = nullptr;
  if (pending != nullptr) {
    for (Timer* t = pending; t != nullptr; t = t->next_) t->head_ = &pending;
  }
  while (pending != nullptr) {
    Timer& timer = *pending;
    timer.Unlink();
    if (timer.due_ == TimePoint::max()) continue;
    if (timer.due_ > now) {
      Link(timer);
      continue;
    }
    timer.due_ = TimePoint::max();
    timer.fire_(timer.owner_);
  }
}

void TimerWheel::Advance(TimePoint now) {
  const uint64_t until = TickOf(now);
  // After a long sleep every slot is passed at most once.
  const uint64_t from = std::max(tick_ + 1, until >= kSlots ? until - kSlots + 1 : 0);
  for (uint64_t tick = from; tick <= until; ++tick) {
    tick_ = tick;
    used_[tick % kSlots / 64] &= ~(uint64_t{1} << (tick % 64));
    RunSlot(&slots_[tick % kSlots], now);
  }
}

TimePoint TimerWheel::Next() const {
  for (uint64_t tick = tick_ + 1; tick < tick_ + kSlots;) {
    const uint64_t rest = used_[tick % kSlots / 64] >> (tick % 64);
    if (rest != 0) {
      tick += static_cast<uint64_t>(std::countr_zero(rest));
      return TimePoint(Duration(static_cast<int64_t>(tick << kTickBits)));
    }
    tick += 64 - tick % 64;
  }
  return TimePoint::max();
}

}  // namespace llmd::relay
