#include "plugins/producer/prefix_index.h"

#include <algorithm>
#include <bit>

namespace llmd::sched {

// Blocks of one endpoint by recency: a doubly linked list in an array, found by hash. Node 0 is the
// list's head.
class PrefixIndex::Lru {
 public:
  std::mutex mutex;  // guards all that follows

  Lru() { nodes_.emplace_back(); }

  // True when the block is new.
  bool Touch(uint64_t hash, uint8_t shard) {
    uint64_t& at = where_.At(hash);
    if (const bool fresh = at == 0; !fresh) {
      Unlink(static_cast<uint32_t>(at));
      LinkFront(static_cast<uint32_t>(at));
      return false;
    }
    at = Allocate();
    nodes_[at].block = {hash, shard};
    LinkFront(static_cast<uint32_t>(at));
    ++size_;
    return true;
  }
  Block PopOldest() {
    const uint32_t last = nodes_[0].prev;
    const Block block = nodes_[last].block;
    Unlink(last);
    where_.Erase(block.hash);
    free_.push_back(last);
    --size_;
    return block;
  }
  size_t size() const { return size_; }

 private:
  struct Node {
    Block block;
    uint32_t prev = 0, next = 0;
  };
  uint32_t Allocate() {
    if (free_.empty()) {
      nodes_.emplace_back();
      return static_cast<uint32_t>(nodes_.size() - 1);
    }
    const uint32_t n = free_.back();
    free_.pop_back();
    return n;
  }
  void Unlink(uint32_t n) {
    nodes_[nodes_[n].prev].next = nodes_[n].next;
    nodes_[nodes_[n].next].prev = nodes_[n].prev;
  }
  void LinkFront(uint32_t n) {
    nodes_[n].prev = 0;
    nodes_[n].next = nodes_[0].next;
    nodes_[nodes_[0].next].prev = n;
    nodes_[0].next = n;
  }
  std::vector<Node> nodes_;
  std::vector<uint32_t> free_;
  HashMap where_;
  size_t size_ = 0;
};

PrefixIndex::PrefixIndex() = default;
PrefixIndex::~PrefixIndex() = default;

void PrefixIndex::Match(std::span<const uint64_t> chain, std::span<uint32_t> counts) const {
  if (chain.empty()) return;
  const Shard& shard = shards_[ShardOf(chain[0])];
  std::shared_lock lock(shard.mutex);
  for (size_t g = 0; g < shard.groups.size() && g * 64 < counts.size(); ++g) {
    uint64_t alive = ~uint64_t{0};
    size_t depth = 0;
    const auto settle = [&](uint64_t lost) {
      for (; lost != 0; lost &= lost - 1) {
        const size_t slot = g * 64 + static_cast<size_t>(std::countr_zero(lost));
        if (slot < counts.size()) counts[slot] += static_cast<uint32_t>(depth);
      }
    };
    for (; depth < chain.size() && alive != 0; ++depth) {
      const uint64_t* bits = shard.groups[g].Find(chain[depth]);
      const uint64_t still = bits ? alive & *bits : 0;
      settle(alive & ~still);
      alive = still;
    }
    settle(alive);
  }
}

void PrefixIndex::Insert(std::span<const uint64_t> chain, uint32_t slot, size_t capacity) {
  if (chain.empty() || capacity == 0) return;
  const size_t shard = ShardOf(chain[0]);
  // What does not fit would be evicted in this same call; the front of the chain is what can match.
  chain = chain.first(std::min(chain.size(), capacity));
  static thread_local std::vector<uint64_t> fresh;
  static thread_local std::vector<Block> old;
  fresh.clear();
  old.clear();
  Lru& lru = LruOf(slot);
  std::lock_guard lock(lru.mutex);
  // Back to front, so that the front of a chain outlives its tail.
  for (size_t i = chain.size(); i-- > 0;) {
    if (lru.Touch(chain[i], static_cast<uint8_t>(shard))) fresh.push_back(chain[i]);
  }
  while (lru.size() > capacity) old.push_back(lru.PopOldest());
  SetBits(shard, fresh, slot);
  ClearBits(old, slot);
}

void PrefixIndex::Remove(uint32_t slot) {
  std::vector<Block> old;
  Lru& lru = LruOf(slot);
  std::lock_guard lock(lru.mutex);
  while (lru.size() > 0) old.push_back(lru.PopOldest());
  ClearBits(old, slot);
}

void PrefixIndex::SetBits(size_t shard, std::span<const uint64_t> hashes, uint32_t slot) {
  if (hashes.empty()) return;
  size_.fetch_add(hashes.size(), std::memory_order_relaxed);
  Shard& s = shards_[shard];
  std::unique_lock lock(s.mutex);
  if (s.groups.size() <= slot / 64) s.groups.resize(slot / 64 + 1);
  for (uint64_t hash : hashes) s.groups[slot / 64].At(hash) |= uint64_t{1} << (slot % 64);
}

void PrefixIndex::ClearBits(std::span<Block> blocks, uint32_t slot) {
  size_.fetch_sub(blocks.size(), std::memory_order_relaxed);
  std::sort(blocks.begin(), blocks.end(),
            [](const Block& a, const Block& b) { return a.shard < b.shard; });
  for (size_t i = 0; i < blocks.size();) {
    Shard& s = shards_[blocks[i].shard];
    std::unique_lock lock(s.mutex);
    HashMap& group = s.groups[slot / 64];
    for (const uint8_t shard = blocks[i].shard; i < blocks.size() && blocks[i].shard == shard;
         ++i) {
      uint64_t* bits = group.Find(blocks[i].hash);
      if (bits == nullptr) continue;
      *bits &= ~(uint64_t{1} << (slot % 64));
      if (*bits == 0) group.Erase(blocks[i].hash);
    }
  }
}

PrefixIndex::Lru& PrefixIndex::LruOf(uint32_t slot) {
  std::lock_guard lock(lrus_mutex_);
  if (lrus_.size() <= slot) lrus_.resize(slot + 1);
  if (!lrus_[slot]) lrus_[slot] = std::make_unique<Lru>();
  return *lrus_[slot];
}

}  // namespace llmd::sched
