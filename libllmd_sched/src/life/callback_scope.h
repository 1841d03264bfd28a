// Whose callbacks the present thread is in, so that a call that would wait for itself is refused
// instead.
#pragma once

#include <exception>
#include <utility>

#include "llmd/log.h"

namespace llmd::sched {

// Stands while a callback of `owner` runs. Scopes end in the reverse order of their making.
class CallbackScope {
 public:
  explicit CallbackScope(const void* owner)
      : owner_(owner), outer_(std::exchange(innermost_, this)) {}
  ~CallbackScope() { innermost_ = outer_; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;
  // This thread is in a callback of `owner`, however deep.
  static bool Within(const void* owner) {
    for (const CallbackScope* s = innermost_; s != nullptr; s = s->outer_)
      if (s->owner_ == owner) return true;
    return false;
  }

 private:
  const void* const owner_;
  const CallbackScope* const outer_;
  static inline thread_local constinit const CallbackScope* innermost_ = nullptr;
};

// Runs a callback of `owner`. What it throws ends here: nobody above could tell what it means, and
// some are destructors. `logger` null = untold.
template <typename Call>
void RunCallback(const void* owner, const Logger* logger, const Call& call) {
  const CallbackScope scope(owner);
  const auto tell = [&](const char* what) {
    if (logger != nullptr) logger->Error("A request's callback threw", {{"error", what}});
  };
  try {
    call();
  } catch (const std::exception& e) {
    tell(e.what());
  } catch (...) {
    tell("exception of unknown type");
  }
}

}  // namespace llmd::sched
