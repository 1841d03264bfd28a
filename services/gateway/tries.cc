#include "gateway/tries.h"

#include <algorithm>

namespace llmd::gateway {

Duration Backoff::Of(int round) {
  // splitmix64
  uint64_t x = state_ += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  x ^= x >> 31;
  const Duration whole = std::min(kFirst * (int64_t{1} << std::clamp(round, 0, 16)), kMost);
  const auto half = static_cast<uint64_t>((whole / 2).count());
  return whole / 2 + Duration(static_cast<Duration::rep>(x % (half + 1)));
}

void Tries::OnFailed(relay::Failure failure) {
  if (failure != relay::Failure::kRefused && failure != relay::Failure::kOurs) OnReached();
}

std::optional<Duration> Tries::Again(TimePoint now, TimePoint deadline, const TryLimits& limits,
                                     Backoff& backoff) {
  if (Exhausted(limits) || limits.retry_timeout <= Duration::zero()) return std::nullopt;
  if (rounds_ == 0) again_until_ = now + limits.retry_timeout;
  const Duration wait = backoff.Of(rounds_);
  if (now + wait >= std::min(again_until_, deadline)) return std::nullopt;
  ++rounds_;
  return wait;
}

}  // namespace llmd::gateway
