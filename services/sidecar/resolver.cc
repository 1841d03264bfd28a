#include "sidecar/resolver.h"

namespace llmd::sidecar {

std::optional<StatusOr<relay::Target>> Resolver::Ask(relay::Call& call,
                                                     const http::HostPort& name) {
  const TimePoint now = loop_.now();
  auto at = names_.find(name);
  if (at == names_.end()) {
    if (!MakeRoom()) return Unavailable("too many names are being looked up");
    at = names_.try_emplace(name).first;
  }
  Entry& entry = at->second;
  if (entry.under_way && now - entry.begun > kLost) entry.under_way = false;
  const Duration age = now - entry.answered;
  const bool works = entry.answer && entry.answer->ok();
  const bool fresh = entry.answer && age <= (works ? kFresh : kFailureKept);
  const bool usable = fresh || (works && age <= kUsable);
  if (!fresh && !entry.under_way) {
    const Status begun = Begin(name, entry);
    if (!begun.ok() && !usable) return begun;
  }
  if (usable) return entry.answer;
  if (entry.waiting.size() >= kMaxWaiting)
    return Unavailable("too many requests wait for the address of " + name.host);
  entry.waiting.push_back(call.ref());
  return std::nullopt;
}

Status Resolver::Begin(const http::HostPort& name, Entry& entry) {
  LLMD_RETURN_IF_ERROR(submit_([this, name] {
    const StatusOr<relay::Target> answer = lookup_(name);
    // Where the loop has no room for it, the look-up is taken for lost.
    (void)loop_.Post([this, name, answer] { Done(name, answer); });
  }));
  entry.under_way = true;
  entry.begun = loop_.now();
  return OkStatus();
}

void Resolver::Done(const http::HostPort& name, const StatusOr<relay::Target>& answer) {
  const auto at = names_.find(name);
  if (at == names_.end()) return;
  Entry& entry = at->second;
  entry.answer = answer;
  entry.answered = loop_.now();
  entry.under_way = false;
  const std::vector<relay::CallRef> waiting = std::move(entry.waiting);
  entry.waiting.clear();
  for (const relay::CallRef& call : waiting)
    (void)call.Post([this, name, answer](relay::Call& c) { found_(c, name, answer); });
}

// Forgets the name that was looked up longest ago.
bool Resolver::MakeRoom() {
  if (names_.size() < kMaxNames) return true;
  auto oldest = names_.end();
  for (auto at = names_.begin(); at != names_.end(); ++at) {
    if (at->second.under_way) continue;
    if (oldest == names_.end() || at->second.answered < oldest->second.answered) oldest = at;
  }
  if (oldest == names_.end()) return false;
  names_.erase(oldest);
  return true;
}

}  // namespace llmd::sidecar
