// A bounded blocking queue between threads: any number of producers and consumers, one ring
// allocated up front.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "llmd/clock.h"
#include "llmd/status.h"

namespace llmd {

// First in, first out. After Close nothing more goes in, and what is in still comes out.
// Thread-safe. Deadlines are on SystemClock(), as the waits are real.
template <typename T>
class BoundedQueue {
 public:
  // `capacity` of at least 1.
  explicit BoundedQueue(size_t capacity)
      : capacity_(capacity), slots_(std::make_unique<std::optional<T>[]>(capacity)) {
    LLMD_CHECK(capacity > 0);
  }
  BoundedQueue(const BoundedQueue&) = delete;
  BoundedQueue& operator=(const BoundedQueue&) = delete;

  // Each push gives false, and leaves `item` as it was, when the queue is closed or has no room (in
  // time).
  bool TryPush(T&& item) { return Push(std::move(item), nullptr); }
  bool TryPush(const T& item) { return TryPush(T(item)); }
  bool PushUntil(T&& item, TimePoint deadline) { return Push(std::move(item), &deadline); }

  // Nothing when the queue is empty (until the deadline), or closed and empty.
  std::optional<T> TryPop() {
    std::unique_lock lock(mutex_);
    return TakeFront(lock);
  }
  std::optional<T> PopUntil(TimePoint deadline) {
    std::unique_lock lock(mutex_);
    not_empty_.wait_until(lock, deadline, [this] { return size_ > 0 || closed_; });
    return TakeFront(lock);
  }

  // Wakes everyone who waits. Closing twice is harmless.
  void Close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    not_empty_.notify_all();
    not_full_.notify_all();
  }

  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return size_;
  }
  // No item will ever come out again.
  bool drained() const {
    const std::lock_guard lock(mutex_);
    return closed_ && size_ == 0;
  }
  size_t capacity() const { return capacity_; }

 private:
  bool Push(T&& item, const TimePoint* deadline) {
    {
      std::unique_lock lock(mutex_);
      const auto may_go_on = [this] { return closed_ || size_ < capacity_; };
      if (deadline) not_full_.wait_until(lock, *deadline, may_go_on);
      if (closed_ || size_ == capacity_) return false;
      slots_[(first_ + size_) % capacity_].emplace(std::move(item));
      ++size_;
    }
    not_empty_.notify_one();
    return true;
  }

  std::optional<T> TakeFront(std::unique_lock<std::mutex>& lock) {
    if (size_ == 0) return std::nullopt;
    std::optional<T> item = std::move(slots_[first_]);
    slots_[first_].reset();
    first_ = (first_ + 1) % capacity_;
    --size_;
    lock.unlock();
    not_full_.notify_one();
    return item;
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable not_empty_;
  std::condition_variable not_full_;
  // Guarded by mutex_:
  std::unique_ptr<std::optional<T>[]> slots_;
  size_t first_ = 0;
  size_t size_ = 0;
  bool closed_ = false;
};

}  // namespace llmd
