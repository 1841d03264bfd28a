// A way back into an object for callbacks that may come late: once it is closed they find nobody.
// Thread-safe.
#pragma once

#include <condition_variable>
#include <mutex>

namespace llmd::sched {

template <typename T>
class Gate {
 public:
  explicit Gate(T& inside) : inside_(&inside) {}
  // The object, or null when closed. Leave must follow unless it was null.
  T* Enter() {
    std::lock_guard lock(mutex_);
    visitors_ += inside_ != nullptr;
    return inside_;
  }
  void Leave() {
    std::lock_guard lock(mutex_);
    if (--visitors_ == 0) left_.notify_all();
  }
  // Lets nobody in any more and waits for those inside.
  void Close() {
    std::unique_lock lock(mutex_);
    inside_ = nullptr;
    left_.wait(lock, [this] { return visitors_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable left_;
  T* inside_;         // guarded by mutex_
  int visitors_ = 0;  // guarded by mutex_
};

}  // namespace llmd::sched
