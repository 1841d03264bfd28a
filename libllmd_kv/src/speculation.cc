#include "llmd/kv/speculation.h"

#include <algorithm>
#include <ranges>

namespace llmd::kv {
namespace {

// Keys are chained: equal at one place, they are equal up to there.
size_t CommonPrefix(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  const auto places = std::views::iota(size_t{0}, std::min(a.size(), b.size()));
  return *std::ranges::partition_point(places, [&](size_t i) { return a[i] == b[i]; });
}

}  // namespace

Speculation::Speculation(Index& index, size_t max_guesses)
    : index_(index), max_guesses_(std::max<size_t>(max_guesses, 1)) {}

Status Speculation::Guess(NamespaceId ns, std::span<const uint64_t> keys, EndpointId endpoint,
                          TimePoint until) {
  std::lock_guard lock(mutex_);
  LLMD_RETURN_IF_ERROR(index_.Add({.ns = ns, .keys = keys}, {endpoint, TierId::kSpeculative}));
  const auto guess = guesses_.emplace(until, Kept{ns, endpoint, {keys.begin(), keys.end()}});
  of_endpoint_[endpoint].push_back(guess);
  if (guesses_.size() > max_guesses_) End(guesses_.begin());
  return OkStatus();
}

size_t Speculation::Expire(TimePoint now) {
  std::lock_guard lock(mutex_);
  size_t dropped = 0;
  while (!guesses_.empty() && guesses_.begin()->first <= now) dropped += End(guesses_.begin());
  return dropped;
}

size_t Speculation::End(Guesses::iterator guess) {
  Unlist(guess);
  const Kept& kept = guess->second;
  size_t covered = 0;
  if (const auto others = of_endpoint_.find(kept.endpoint); others != of_endpoint_.end()) {
    for (const auto& other : others->second)
      if (other->second.ns == kept.ns)
        covered = std::max(covered, CommonPrefix(kept.keys, other->second.keys));
  }
  const size_t dropped = kept.keys.size() - covered;
  // Fails for an endpoint that is gone only, and then nothing is left to take.
  const Status status =
      index_.EvictChain(kept.ns, kept.keys, covered, {kept.endpoint, TierId::kSpeculative});
  guesses_.erase(guess);
  return status.ok() ? dropped : 0;
}

void Speculation::Unlist(Guesses::iterator guess) {
  const auto of_endpoint = of_endpoint_.find(guess->second.endpoint);
  std::erase(of_endpoint->second, guess);
  if (of_endpoint->second.empty()) of_endpoint_.erase(of_endpoint);
}

void Speculation::Forget(EndpointId endpoint) {
  std::lock_guard lock(mutex_);
  const auto of_endpoint = of_endpoint_.find(endpoint);
  if (of_endpoint == of_endpoint_.end()) return;
  for (const auto& guess : of_endpoint->second) guesses_.erase(guess);
  of_endpoint_.erase(of_endpoint);
}

size_t Speculation::size() const {
  std::lock_guard lock(mutex_);
  return guesses_.size();
}

}  // namespace llmd::kv
