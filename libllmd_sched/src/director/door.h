// A way into an object for callbacks that may come late: it does not end while they are inside, and
// once it is gone they find nobody.
#pragma once

#include <condition_variable>
#include <mutex>

namespace llmd::sched {

// Thread-safe.
template <typename T>
class Door {
 public:
  explicit Door(T& inside) : inside_(&inside) {}

  // One call inside. False when the object is gone. The door outlives it.
  class Visit {
   public:
    explicit Visit(Door& door) : door_(door) {
      std::lock_guard lock(door_.mutex_);
      inside_ = door_.inside_;
      shut_ = door_.shut_;
      door_.visitors_ += inside_ != nullptr;
    }
    ~Visit() {
      if (inside_ == nullptr) return;
      std::lock_guard lock(door_.mutex_);
      if (--door_.visitors_ == 0) door_.left_.notify_all();
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    explicit operator bool() const { return inside_ != nullptr; }
    T* operator->() const { return inside_; }
    // Nothing may be begun any more.
    bool shut() const { return shut_; }

   private:
    Door& door_;
    T* inside_ = nullptr;
    bool shut_ = false;
  };

  // Visits from now on say `shut`; waits for those inside.
  void Shut() {
    std::unique_lock lock(mutex_);
    shut_ = true;
    left_.wait(lock, [this] { return visitors_ == 0; });
  }
  // The object goes: lets nobody in any more and waits for those inside.
  void Close() {
    std::unique_lock lock(mutex_);
    inside_ = nullptr;
    left_.wait(lock, [this] { return visitors_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable left_;
  T* inside_;          // guarded by mutex_
  bool shut_ = false;  // guarded by mutex_
  int visitors_ = 0;   // guarded by mutex_
};

}  // namespace llmd::sched
