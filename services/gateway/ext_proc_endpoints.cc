#include "gateway/ext_proc_endpoints.h"

#include <algorithm>

namespace llmd::gateway {
namespace {

bool Contains(std::span<const std::string> list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

EndpointBook::Known* EndpointBook::Find(const relay::Target& target) {
  const auto found = index_.find(target);
  return found == index_.end() ? nullptr : &known_[found->second];
}

void EndpointBook::Learn(const relay::Target& target, std::string_view address, TimePoint now) {
  if (Known* known = Find(target)) {
    known->named = now;
    return;
  }
  if (known_.size() >= kMaxEndpoints) ForgetOldest();
  index_.emplace(target, known_.size());
  known_.push_back({{target, {}}, std::string(address), now, {}});
}

void EndpointBook::ForgetOldest() {
  const auto oldest = std::min_element(
      known_.begin(), known_.end(), [](const Known& a, const Known& b) { return a.named < b.named; });
  if (oldest->ejected_until != TimePoint()) --ejected_;
  index_.erase(oldest->endpoint.target);
  if (oldest != known_.end() - 1) {
    *oldest = std::move(known_.back());
    index_[oldest->endpoint.target] = static_cast<size_t>(oldest - known_.begin());
  }
  known_.pop_back();
}

void EndpointBook::Failed(const relay::Target& target, TimePoint now) {
  Known* known = Find(target);
  if (known == nullptr) return;
  if (known->ejected_until == TimePoint()) ++ejected_;
  known->ejected_until = now + ejection_;
}

void EndpointBook::Answered(const relay::Target& target) {
  if (ejected_ == 0) return;
  Known* known = Find(target);
  if (known == nullptr || known->ejected_until == TimePoint()) return;
  known->ejected_until = {};
  --ejected_;
}

bool EndpointBook::Ejected(const relay::Target& target, TimePoint now) const {
  if (ejected_ == 0) return false;
  const auto found = index_.find(target);
  return found != index_.end() && known_[found->second].ejected_until > now;
}

void EndpointBook::AddEjected(TimePoint now, std::vector<std::string>& out) const {
  if (ejected_ == 0) return;
  for (const Known& known : known_) {
    if (known.ejected_until > now && !Contains(out, known.address)) out.push_back(known.address);
  }
}

void EndpointBook::AddOthers(std::span<const std::string> exclude,
                             std::vector<std::string>& out) const {
  for (const Known& known : known_) {
    if (!Contains(exclude, known.address)) out.push_back(known.address);
  }
}

const Endpoint* EndpointBook::NextInTurn(std::span<const std::string> exclude, bool ejected_too,
                                         TimePoint now) {
  for (size_t i = 0; i < known_.size(); ++i) {
    const Known& known = known_[turn_++ % known_.size()];
    if ((!ejected_too && known.ejected_until > now) || Contains(exclude, known.address)) continue;
    given_ = {known.endpoint.target, known.address};
    return &given_;
  }
  return nullptr;
}

}  // namespace llmd::gateway
