#include "director/name_cap.h"

#include <cstdint>

namespace llmd::sched {
namespace {

constexpr size_t kHashDigits = 16;

uint64_t HashOf(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

bool IsContinuation(char c) {
  return (static_cast<uint8_t>(c) & 0xC0) == 0x80;
}

}  // namespace

std::string BoundedName(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  const size_t most = max_bytes - kHashDigits - 1;
  size_t cut = most;
  while (cut > most - 3 && IsContinuation(text[cut])) --cut;
  std::string out(text.substr(0, cut));
  out += '~';
  const uint64_t hash = HashOf(text);
  for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[hash >> shift & 15];
  return out;
}

std::string NameCap::Fold(std::string_view name) {
  std::string bounded = BoundedName(name);
  std::lock_guard lock(mutex_);
  if (seen_.contains(bounded) || kept_.contains(bounded)) return bounded;
  if (seen_.size() >= kMaxNames) return "other";
  seen_.insert(bounded);
  return bounded;
}

void NameCap::Keep(const std::set<std::string>& names) {
  std::lock_guard lock(mutex_);
  for (const std::string& name : names) kept_.insert(BoundedName(name));
}

}  // namespace llmd::sched
