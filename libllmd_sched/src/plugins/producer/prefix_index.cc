#include "plugins/producer/prefix_index.h"

#include <algorithm>
#include <mutex>

namespace llmd::sched {

namespace {

// Runs that Remove takes under one lock.
constexpr int kRemovedAtOnce = 256;

size_t CommonBlocks(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

}  // namespace

void PrefixIndex::Match(std::span<const uint64_t> chain, std::span<uint32_t> counts) const {
  std::shared_lock lock(mutex_);
  while (!chain.empty()) {
    const auto found = runs_.find(chain[0]);
    if (found == runs_.end()) return;
    const Run& run = *found->second;
    const size_t common = CommonBlocks(chain, run.hashes);
    for (const Holding& h : run.holdings) {
      if (h.slot < counts.size())
        counts[h.slot] += std::min(h.blocks, static_cast<uint32_t>(common));
    }
    chain = chain.subspan(common);
  }
}

void PrefixIndex::Insert(std::span<const uint64_t> chain, uint32_t slot, size_t capacity) {
  if (chain.empty() || capacity == 0) return;
  static thread_local std::vector<Step> path;
  path.clear();
  std::lock_guard lock(mutex_);
  if (lrus_.size() <= slot) lrus_.resize(slot + 1);
  // The front of the chain is what can match, and what is touched last.
  Walk(chain.first(std::min(chain.size(), capacity)), slot, path);
  for (size_t i = path.size(); i-- > 0;) Touch(*path[i].first, slot, path[i].second);
  Evict(slot, capacity);
}

void PrefixIndex::Remove(uint32_t slot) {
  for (bool more = true; more;) {
    std::lock_guard lock(mutex_);
    if (lrus_.size() <= slot) return;
    Lru& lru = lrus_[slot];
    for (int i = 0; i < kRemovedAtOnce && lru.oldest != nullptr; ++i)
      Drop(*lru.oldest, *Find(*lru.oldest, slot));
    more = lru.oldest != nullptr;
  }
}

PrefixIndex::Holding* PrefixIndex::Find(Run& run, uint32_t slot) {
  const auto at = std::ranges::lower_bound(run.holdings, slot, {}, &Holding::slot);
  return at != run.holdings.end() && at->slot == slot ? &*at : nullptr;
}

void PrefixIndex::Walk(std::span<const uint64_t> chain, uint32_t slot, std::vector<Step>& path) {
  while (!chain.empty()) {
    const auto [at, fresh] = runs_.try_emplace(chain[0]);
    if (fresh) {
      at->second = std::make_unique<Run>();
      at->second->hashes.assign(chain.begin(), chain.end());
    }
    Run& run = *at->second;
    const size_t common = fresh ? chain.size() : CommonBlocks(chain, run.hashes);
    const Holding* held = Find(run, slot);
    if (held != nullptr && held->blocks > common) Split(run, common);
    path.emplace_back(&run, common);
    chain = chain.subspan(common);
  }
}

// Makes the first `blocks` of the run the endpoint's most recent ones.
void PrefixIndex::Touch(Run& run, uint32_t slot, size_t blocks) {
  Holding* holding = Find(run, slot);
  if (holding == nullptr) {
    const auto at = std::ranges::lower_bound(run.holdings, slot, {}, &Holding::slot);
    holding = &*run.holdings.insert(at, Holding{.slot = slot});
  } else {
    Unlink(*holding);
  }
  Link(run, *holding);
  // Should two blocks of a chain have one hash, its path may hold a run that was split since.
  const size_t now = std::min(blocks, run.hashes.size());
  if (now <= holding->blocks) return;
  lrus_[slot].blocks += now - holding->blocks;
  size_.fetch_add(now - holding->blocks, std::memory_order_relaxed);
  holding->blocks = static_cast<uint32_t>(now);
}

// Makes a run of its own of the blocks from `at` on: for each endpoint that holds any, they are the
// next older ones. Should another run begin with that hash, they are forgotten instead.
void PrefixIndex::Split(Run& run, size_t at) {
  const auto [place, fresh] = runs_.try_emplace(run.hashes[at]);
  if (fresh) {
    place->second = std::make_unique<Run>();
    place->second->hashes.assign(run.hashes.begin() + static_cast<std::ptrdiff_t>(at),
                                 run.hashes.end());
  }
  Run* const tail = fresh ? place->second.get() : nullptr;
  for (Holding& front : run.holdings) {
    if (front.blocks <= at) continue;
    const auto rest = static_cast<uint32_t>(front.blocks - at);
    if (tail == nullptr) {
      Shorten(front, rest);
      continue;
    }
    tail->holdings.push_back({front.slot, rest, front.older, &run});
    (front.older ? Find(*front.older, front.slot)->newer : lrus_[front.slot].oldest) = tail;
    front.older = tail;
    front.blocks = static_cast<uint32_t>(at);
  }
  Trim(run);
}

void PrefixIndex::Evict(uint32_t slot, size_t capacity) {
  Lru& lru = lrus_[slot];
  while (lru.blocks > capacity) {
    Run& run = *lru.oldest;
    Holding& holding = *Find(run, slot);
    const size_t excess = lru.blocks - capacity;
    if (holding.blocks <= excess) {
      Drop(run, holding);
    } else {
      Shorten(holding, static_cast<uint32_t>(excess));
      Trim(run);
    }
  }
}

void PrefixIndex::Shorten(Holding& holding, uint32_t by) {
  holding.blocks -= by;
  lrus_[holding.slot].blocks -= by;
  size_.fetch_sub(by, std::memory_order_relaxed);
}

void PrefixIndex::Drop(Run& run, Holding& holding) {
  Shorten(holding, holding.blocks);
  Unlink(holding);
  run.holdings.erase(run.holdings.begin() + (&holding - run.holdings.data()));
  if (run.holdings.empty()) {
    runs_.erase(runs_.find(run.hashes[0]));
  } else {
    Trim(run);
  }
}

// Forgets the blocks at the end that nobody holds any more.
void PrefixIndex::Trim(Run& run) {
  size_t held = 0;
  for (const Holding& h : run.holdings) held = std::max<size_t>(held, h.blocks);
  run.hashes.resize(held);
  if (run.hashes.capacity() > 2 * held) run.hashes.shrink_to_fit();
}

void PrefixIndex::Link(Run& run, Holding& holding) {
  Lru& lru = lrus_[holding.slot];
  holding.newer = nullptr;
  holding.older = lru.newest;
  (lru.newest ? Find(*lru.newest, holding.slot)->newer : lru.oldest) = &run;
  lru.newest = &run;
}

void PrefixIndex::Unlink(const Holding& holding) {
  Lru& lru = lrus_[holding.slot];
  (holding.older ? Find(*holding.older, holding.slot)->newer : lru.oldest) = holding.newer;
  (holding.newer ? Find(*holding.newer, holding.slot)->older : lru.newest) = holding.older;
}

}  // namespace llmd::sched
