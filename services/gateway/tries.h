// How often one request is sent on before its answer has begun. Each endpoint gets it once; then,
// while nobody else is left, all of them again after a back-off.
#pragma once

#include <cstdint>
#include <optional>

#include "llmd/clock.h"
#include "llmd/http/relay/call.h"

namespace llmd::gateway {

struct TryLimits {
  // Engines that may read the request: one that breaks them all must not meet them all. Those that
  // could not be reached do not count, up to kMaxUnreached.
  int max_attempts = 3;
  static constexpr int kMaxUnreached = 16;
  // How long it is tried again once every endpoint has failed it.
  Duration retry_timeout = std::chrono::seconds(2);
};

// The waits before a request is tried again, doubling, each between its half and its whole, so that
// the requests of an outage do not come back together. Thread-compatible.
class Backoff {
 public:
  static constexpr Duration kFirst = std::chrono::milliseconds(50);
  static constexpr Duration kMost = std::chrono::seconds(1);
  explicit Backoff(uint64_t seed) : state_(seed) {}
  Duration Of(int round);  // from 0

 private:
  uint64_t state_;
};

class Tries {
 public:
  void Reset() { *this = Tries(); }
  void OnSent() { ++sent_; }
  // The last one was read by an engine: it failed after that, or answered.
  void OnReached() { ++reached_; }
  void OnFailed(relay::Failure failure);
  int sent() const { return sent_; }
  bool Exhausted(const TryLimits& limits) const {
    return reached_ >= limits.max_attempts || sent_ - reached_ >= TryLimits::kMaxUnreached;
  }
  // Every endpoint that there is has failed it: how long until it may be sent to all of them again;
  // nothing when it may not. `deadline` is the request's.
  std::optional<Duration> Again(TimePoint now, TimePoint deadline, const TryLimits& limits,
                                Backoff& backoff);

 private:
  int sent_ = 0, reached_ = 0, rounds_ = 0;
  TimePoint again_until_{};
};

}  // namespace llmd::gateway
