// Sets of holders, each stored once: many blocks have the same holders. A set never changes.
#pragma once

#include <absl/container/flat_hash_set.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "index/epochs.h"

namespace llmd::kv {

// Few holders are a sorted list, many a bitmap.
struct HolderSet {
  static constexpr uint32_t kMaxList = 16;
  uint64_t hash;      // sum over the members
  uint32_t refs;      // of spans in present views; the writer's
  uint32_t count;     // never 0
  uint32_t words;     // of the bitmap; 0 = a list
  uint32_t capacity;  // bits: one more than the highest member, rounded up to 64

  const uint32_t* list() const { return reinterpret_cast<const uint32_t*>(this + 1); }
  const uint64_t* bits() const { return reinterpret_cast<const uint64_t*>(this + 1); }
  bool Has(uint32_t holder) const {
    if (words != 0) return holder < capacity && (bits()[holder / 64] >> (holder % 64) & 1) != 0;
    for (uint32_t i = 0; i < count; ++i)
      if (list()[i] == holder) return true;
    return false;
  }
  template <typename Each>
  void ForEach(Each each) const {
    if (words == 0) {
      for (uint32_t i = 0; i < count; ++i) each(list()[i]);
      return;
    }
    for (uint32_t w = 0; w < words; ++w)
      for (uint64_t left = bits()[w]; left != 0; left &= left - 1)
        each(w * 64 + static_cast<uint32_t>(__builtin_ctzll(left)));
  }
};

// Belongs to the index's writer; readers look at sets only.
class HolderSets {
 public:
  explicit HolderSets(Epochs& epochs) : epochs_(epochs) {}
  ~HolderSets();

  // The set with `holder`, or without it; null is the empty set. Takes no reference.
  const HolderSet* With(const HolderSet* set, uint32_t holder);
  const HolderSet* Without(const HolderSet* set, uint32_t holder);
  // Of members in rising order.
  const HolderSet* Make(std::span<const uint32_t> members);
  void Ref(const HolderSet* set) {
    if (set != nullptr) ++const_cast<HolderSet*>(set)->refs;
  }
  // The last one takes the set away, from readers once they have left.
  void Unref(const HolderSet* set);
  size_t size() const { return sets_.size(); }
  size_t bytes() const { return sets_.capacity() * (sizeof(void*) + 1); }

 private:
  struct Members {
    uint64_t hash;
    std::span<const uint32_t> list;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(const HolderSet* s) const { return static_cast<size_t>(s->hash); }
    size_t operator()(const Members& m) const { return static_cast<size_t>(m.hash); }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const HolderSet* a, const HolderSet* b) const { return a == b; }
    bool operator()(const HolderSet* a, const Members& b) const;
    bool operator()(const Members& a, const HolderSet* b) const { return (*this)(b, a); }
  };
  Epochs& epochs_;
  absl::flat_hash_set<const HolderSet*, Hash, Equal> sets_;
  std::vector<uint32_t> members_;  // scratch
};

}  // namespace llmd::kv
