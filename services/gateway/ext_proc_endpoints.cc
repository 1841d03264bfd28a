#include "gateway/ext_proc_endpoints.h"

#include <algorithm>

namespace llmd::gateway {
namespace {

bool Contains(std::span<const std::string> list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

EndpointBook::Key EndpointBook::KeyOf(const relay::Target& target) {
  const Key hash = target.Hash();
  if (target.v6()) return hash | Key{1} << 63;
  Key key = 0;
  for (size_t i = 0; i < 4; ++i) key = key << 8 | target.address()[i];
  return key << 16 | target.port();
}

void EndpointBook::Learn(const relay::Target& target, std::string_view address, TimePoint now) {
  const Key key = KeyOf(target);
  if (const auto found = index_.find(key); found != index_.end()) {
    known_[found->second].named = now;
    return;
  }
  if (known_.size() >= kMaxEndpoints) ForgetOldest();
  index_.emplace(key, known_.size());
  known_.push_back({target, std::string(address), now});
}

void EndpointBook::ForgetOldest() {
  const auto oldest =
      std::min_element(known_.begin(), known_.end(),
                       [](const Known& a, const Known& b) { return a.named < b.named; });
  index_.erase(KeyOf(oldest->target));
  if (oldest != known_.end() - 1) {
    *oldest = std::move(known_.back());
    index_[KeyOf(oldest->target)] = static_cast<size_t>(oldest - known_.begin());
  }
  known_.pop_back();
}

void EndpointBook::AddThese(std::span<const Key> keys, std::vector<std::string>& out) const {
  for (const Key key : keys) {
    const auto found = index_.find(key);
    if (found == index_.end()) continue;
    const std::string& address = known_[found->second].address;
    if (!Contains(out, address)) out.push_back(address);
  }
}

void EndpointBook::AddOthers(std::span<const std::string> exclude,
                             std::vector<std::string>& out) const {
  for (const Known& known : known_) {
    if (!Contains(exclude, known.address)) out.push_back(known.address);
  }
}

const Endpoint* EndpointBook::NextInTurn(std::span<const std::string> exclude,
                                         std::span<const Key> out) {
  for (size_t i = 0; i < known_.size(); ++i) {
    const Known& known = known_[turn_++ % known_.size()];
    if (std::binary_search(out.begin(), out.end(), KeyOf(known.target))) continue;
    if (Contains(exclude, known.address)) continue;
    given_ = {known.target, known.address};
    return &given_;
  }
  return nullptr;
}

}  // namespace llmd::gateway
