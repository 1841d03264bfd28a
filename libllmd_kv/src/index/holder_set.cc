#include "index/holder_set.h"

#include <algorithm>

#include "index/mix.h"

namespace llmd::kv {

HolderSets::~HolderSets() {
  for (const HolderSet* set : sets_) epochs_.Free(const_cast<HolderSet*>(set));
}

bool HolderSets::Equal::operator()(const HolderSet* a, const Members& b) const {
  if (a->hash != b.hash || a->count != b.list.size()) return false;
  size_t i = 0;
  bool same = true;
  a->ForEach([&](uint32_t holder) { same = same && b.list[i++] == holder; });
  return same;
}

const HolderSet* HolderSets::With(const HolderSet* set, uint32_t holder) {
  if (set != nullptr && set->Has(holder)) return set;
  members_.clear();
  if (set != nullptr) set->ForEach([&](uint32_t h) { members_.push_back(h); });
  members_.insert(std::ranges::upper_bound(members_, holder), holder);
  return Make(members_);
}

const HolderSet* HolderSets::Without(const HolderSet* set, uint32_t holder) {
  if (set == nullptr || !set->Has(holder)) return set;
  members_.clear();
  set->ForEach([&](uint32_t h) {
    if (h != holder) members_.push_back(h);
  });
  return members_.empty() ? nullptr : Make(members_);
}

const HolderSet* HolderSets::Make(std::span<const uint32_t> members) {
  Members wanted{0, members};
  for (uint32_t holder : members) wanted.hash += Mix(holder + 1);
  if (const auto it = sets_.find(wanted); it != sets_.end()) return *it;
  const auto count = static_cast<uint32_t>(members.size());
  const uint32_t words = count <= HolderSet::kMaxList ? 0 : members.back() / 64 + 1;
  const size_t size = words == 0 ? count * sizeof(uint32_t) : words * sizeof(uint64_t);
  auto* set = static_cast<HolderSet*>(epochs_.Allocate(sizeof(HolderSet) + size));
  *set = {wanted.hash, 0, count, words, (members.back() / 64 + 1) * 64};
  if (words == 0) {
    std::memcpy(set + 1, members.data(), size);
  } else {
    auto* bits = reinterpret_cast<uint64_t*>(set + 1);
    std::fill_n(bits, words, 0);
    for (uint32_t holder : members) bits[holder / 64] |= uint64_t{1} << (holder % 64);
  }
  sets_.insert(set);
  return set;
}

void HolderSets::Unref(const HolderSet* set) {
  if (set == nullptr || --const_cast<HolderSet*>(set)->refs != 0) return;
  sets_.erase(sets_.find(set));
  epochs_.Retire(const_cast<HolderSet*>(set));
}

}  // namespace llmd::kv
