// The query of a run index: walks the runs of a prompt and follows the candidates through their
// spans.
#include <algorithm>
#include <cstring>

#include "index/run_index.h"

namespace llmd::kv {
namespace {

constexpr size_t kCompare = 256;  // keys at a time

// The holders of the present span as a bitmap.
struct Bits {
  const uint64_t* words = nullptr;
  size_t count = 0;
  uint64_t At(size_t i) const { return i < count ? words[i] : 0; }
};

struct Follow {
  double weight = 0;     // of the present block
  uint32_t since = 0;    // the first block that counts with `weight` and is not summed up yet
  bool alive = false;    // held every block so far
  bool noted = false;    // in the list of this step
  uint8_t tiers = 0;     // that hold the present block, a bit each
  uint8_t unbroken = 0;  // that held every block so far
  std::array<uint8_t, kMaxTiers> count{};  // groups that hold it, by tier
};

// What a thread needs while it scores.
struct Scratch {
  std::vector<Follow> follows;
  std::vector<uint32_t> noted;
  std::vector<uint64_t> bitmap[2];
};

Bits BitsOf(const HolderSet& set, std::vector<uint64_t>& room) {
  if (set.words != 0) return {set.bits(), set.words};
  const size_t words = set.capacity / 64;
  if (room.size() < words) room.resize(words);
  std::fill_n(room.begin(), words, 0);
  for (uint32_t i = 0; i < set.count; ++i)
    room[set.list()[i] / 64] |= uint64_t{1} << set.list()[i] % 64;
  return {room.data(), words};
}

// The first `most` keys that are equal, counted in steps; `known` are.
size_t Compare(const uint64_t* a, const uint64_t* b, size_t known, size_t most) {
  const size_t step = std::min(kCompare, most - known);
  if (std::memcmp(a + known, b + known, step * sizeof(uint64_t)) == 0) return known + step;
  while (a[known] == b[known]) ++known;
  return known;
}

class Fold {
 public:
  Fold(const Candidates& candidates, const std::array<double, 1 << kMaxTiers>& weights,
       std::span<PrefixMatch> out, Scratch& scratch)
      : candidates_(candidates), weights_(weights), out_(out), scratch_(scratch) {
    std::ranges::fill(out, PrefixMatch());
    scratch_.follows.assign(out.size(), {});
    scratch_.noted.clear();
  }

  // From block `at` on these hold it. False: no candidate is left.
  template <typename InfoOf>
  bool Enter(const HolderSet* set, uint32_t at, const InfoOf& info_of) {
    if (set == last_) return alive_ != 0;
    toggle_ = !toggle_;
    const Bits now = BitsOf(*set, scratch_.bitmap[toggle_]);
    const bool first = last_ == nullptr;
    const size_t words = std::max(now.count, before_.count);
    for (size_t w = 0; w < words; ++w) {
      const uint64_t on = now.At(w);
      for (uint64_t left = on ^ before_.At(w); left != 0; left &= left - 1) {
        const uint64_t bit = left & -left;
        const auto& info = info_of(static_cast<uint32_t>(w * 64 + __builtin_ctzll(left)));
        const uint32_t place = candidates_.PlaceOf(info.endpoint);
        if (place != Candidates::kAbsent)
          Note(place, static_cast<uint8_t>(info.tier), (on & bit) != 0, first);
      }
    }
    for (uint32_t place : scratch_.noted) Settle(place, at, first);
    scratch_.noted.clear();
    last_ = set;
    before_ = now;
    return alive_ != 0;
  }

  // Block `at` and those behind it nobody holds.
  void Finish(uint32_t at) {
    for (uint32_t place = 0; alive_ != 0 && place < out_.size(); ++place)
      if (scratch_.follows[place].alive) End(place, at);
    candidates_.ForRepeated([&](uint32_t from, uint32_t to) { out_[to] = out_[from]; });
  }

 private:
  void Note(uint32_t place, uint8_t tier, bool on, bool first) {
    Follow& f = scratch_.follows[place];
    if (!first && !f.alive) return;
    const auto mark = static_cast<uint8_t>(1 << tier);
    if (on && f.count[tier]++ == 0) f.tiers |= mark;
    if (!on && --f.count[tier] == 0) f.tiers &= static_cast<uint8_t>(~mark);
    if (f.noted) return;
    f.noted = true;
    scratch_.noted.push_back(place);
  }
  void Settle(uint32_t place, uint32_t at, bool first) {
    Follow& f = scratch_.follows[place];
    f.noted = false;
    if (first) {
      f.alive = true;
      f.unbroken = f.tiers;
      f.weight = weights_[f.tiers];
      ++alive_;
      return;
    }
    if (f.tiers == 0) return End(place, at);
    EndTiers(place, f.unbroken & ~f.tiers, at);
    f.unbroken &= f.tiers;
    const double weight = weights_[f.tiers];
    if (weight == f.weight) return;
    Sum(place, at);
    f.weight = weight;
  }
  void End(uint32_t place, uint32_t at) {
    Follow& f = scratch_.follows[place];
    Sum(place, at);
    out_[place].blocks = at;
    EndTiers(place, f.unbroken, at);
    f.alive = false;
    --alive_;
  }
  void EndTiers(uint32_t place, uint32_t tiers, uint32_t at) {
    for (; tiers != 0; tiers &= tiers - 1) out_[place].tier_blocks[__builtin_ctz(tiers)] = at;
  }
  void Sum(uint32_t place, uint32_t at) {
    Follow& f = scratch_.follows[place];
    out_[place].score += (at - f.since) * f.weight;
    f.since = at;
  }

  const Candidates& candidates_;
  const std::array<double, 1 << kMaxTiers>& weights_;
  const std::span<PrefixMatch> out_;
  Scratch& scratch_;
  const HolderSet* last_ = nullptr;
  Bits before_;
  bool toggle_ = false;
  size_t alive_ = 0;
};

}  // namespace

void RunIndex::Score(NamespaceId ns, std::span<const uint64_t> keys, const Candidates& candidates,
                     std::span<PrefixMatch> out) const {
  LLMD_CHECK(out.size() == candidates.size());
  static thread_local Scratch scratch;
  Fold fold(candidates, directory().weights(), out, scratch);
  const uint16_t space = directory().SpaceNumberOf(ns);
  const auto info_of = [this](uint32_t holder) -> const HolderInfo& { return InfoOf(holder); };
  const Epochs::Pin pin(epochs_);
  size_t at = 0;
  const auto walk = [&](const RunView& view) {
    const size_t most = std::min<size_t>(view.length, keys.size() - at);
    size_t same = 0, begin = 0;
    for (const RunSpan& span : view) {
      while (same < most && same < span.end) {
        const size_t before = same;
        same = Compare(keys.data() + at, view.keys, same, most);
        if (same - before < std::min(kCompare, most - before)) break;
      }
      if (same <= begin) break;
      if (span.set == nullptr ||
          !fold.Enter(span.set, static_cast<uint32_t>(at + begin), info_of)) {
        at += begin;
        return false;
      }
      if (same < span.end) break;
      begin = span.end;
    }
    at += same;
    return true;
  };
  while (at < keys.size()) {
    const RunView* view = heads_.Find(space, keys[at]);
    if (view == nullptr) break;
    if (view->used.load(std::memory_order_relaxed) == 0)
      view->used.store(1, std::memory_order_relaxed);
    if (!walk(*view)) break;
  }
  fold.Finish(static_cast<uint32_t>(at));
}

}  // namespace llmd::kv
