// One immutable value that writers replace and readers look at: how configuration and endpoint
// state cross threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace llmd {

// Holds the latest `const T`. Thread-safe. A value lives as long as anyone holds it. (Not
// std::atomic<shared_ptr>: the standard library in use spins in it, and ThreadSanitizer cannot
// follow it.)
template <typename T>
class Snapshot {
 public:
  explicit Snapshot(std::shared_ptr<const T> value = nullptr) : value_(std::move(value)) {}

  void Publish(std::shared_ptr<const T> value) {
    {
      const std::lock_guard lock(mutex_);
      value_.swap(value);
      version_.fetch_add(1, std::memory_order_release);
    }
    // The old value, now in `value`, is freed here, outside the lock.
  }

  std::shared_ptr<const T> Load() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }

  // Grows with each Publish.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // One thread's view: takes the lock only after a Publish, otherwise one atomic load.
  // Thread-compatible; the snapshot outlives it. Keeps the value it last saw alive.
  class Reader {
   public:
    explicit Reader(const Snapshot& snapshot) : snapshot_(snapshot) {}

    const std::shared_ptr<const T>& Load() {
      if (snapshot_.version() != version_) {
        const std::lock_guard lock(snapshot_.mutex_);
        value_ = snapshot_.value_;
        version_ = snapshot_.version_.load(std::memory_order_relaxed);
      }
      return value_;
    }

   private:
    const Snapshot& snapshot_;
    std::shared_ptr<const T> value_;
    uint64_t version_ = 0;
  };

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;
  std::atomic<uint64_t> version_{1};
};

}  // namespace llmd
