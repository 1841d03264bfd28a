#include "llmd/http/relay/upstream_health.h"

#include <algorithm>

namespace llmd::relay {

void UpstreamHealth::Eject(Suspect& suspect) {
  suspect.ejected = true;
  suspect.probing = false;
  suspect.backoff = suspect.backoff == Duration::zero()
                        ? options_.first_backoff
                        : std::min(suspect.backoff * 2, options_.max_backoff);
  suspect.until = clock_.Now() + suspect.backoff;
}

void UpstreamHealth::Publish() {
  auto next = std::make_shared<std::vector<Key>>();
  for (const auto& [key, suspect] : suspects_) {
    if (suspect.ejected) next->push_back(key);
  }
  suspect_count_.store(suspects_.size(), std::memory_order_relaxed);
  if (*next == *ejected_) return;
  ejected_ = std::move(next);
  version_.fetch_add(1, std::memory_order_release);
}

bool UpstreamHealth::Failed(Key key, const Target& target, Failure failure) {
  if (failure == Failure::kOurs || failure == Failure::kDeadline) return false;
  const bool gone = failure == Failure::kRefused;
  return Add(key, target, gone ? options_.threshold : 1, gone);
}

bool UpstreamHealth::Lost(Key key, const Target& target) {
  return Add(key, target, options_.threshold, /*gone=*/true);
}

// For one more of those that failed requests.
bool UpstreamHealth::HasRoom() const {
  const size_t members = members_.load(std::memory_order_relaxed);
  if (members == 0) return true;
  const auto most = static_cast<size_t>(static_cast<double>(members) * options_.max_share);
  return ejected_->size() < std::max<size_t>(most, 1);
}

bool UpstreamHealth::Add(Key key, const Target& target, int failures, bool gone) {
  const std::lock_guard lock(mutex_);
  const auto found = suspects_.find(key);
  if (found == suspects_.end() && suspects_.size() >= options_.max_suspects) return false;
  Suspect& suspect = found != suspects_.end() ? found->second : suspects_[key];
  suspect.target = target;
  suspect.failures += failures;
  const bool ejects =
      !suspect.ejected && suspect.failures >= options_.threshold && (gone || HasRoom());
  if (ejects) Eject(suspect);
  Publish();
  return ejects;
}

void UpstreamHealth::Succeeded(Key key) {
  if (suspect_count_.load(std::memory_order_relaxed) == 0) return;
  const std::lock_guard lock(mutex_);
  if (suspects_.erase(key) > 0) Publish();
}

std::shared_ptr<const std::vector<UpstreamHealth::Key>> UpstreamHealth::Ejected() const {
  const std::lock_guard lock(mutex_);
  return ejected_;
}

std::vector<UpstreamHealth::Probe> UpstreamHealth::TakeDue() {
  std::vector<Probe> due;
  if (suspect_count_.load(std::memory_order_relaxed) == 0) return due;
  const TimePoint now = clock_.Now();
  const std::lock_guard lock(mutex_);
  for (auto& [key, suspect] : suspects_) {
    if (!suspect.ejected || suspect.probing || suspect.until > now) continue;
    suspect.probing = true;
    due.push_back({key, suspect.target});
  }
  return due;
}

void UpstreamHealth::Probed(Key key, bool well) {
  const std::lock_guard lock(mutex_);
  const auto found = suspects_.find(key);
  if (found == suspects_.end() || !found->second.probing) return;
  Suspect& suspect = found->second;
  suspect.probing = false;
  if (well) {
    suspect.ejected = false;
    suspect.failed_probes = 0;
    suspect.failures = 0;
  } else if (++suspect.failed_probes >= options_.max_failed_probes) {
    suspects_.erase(found);
  } else {
    Eject(suspect);
  }
  Publish();
}

void UpstreamHealth::NotProbed(Key key) {
  const std::lock_guard lock(mutex_);
  const auto found = suspects_.find(key);
  if (found == suspects_.end() || !found->second.probing) return;
  found->second.probing = false;
  found->second.until = clock_.Now() + found->second.backoff;
}

}  // namespace llmd::relay
