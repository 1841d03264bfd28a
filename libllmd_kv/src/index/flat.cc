#include <algorithm>
#include <array>
#include <mutex>
#include <shared_mutex>

#include "index/clock_map.h"
#include "index/names.h"
#include "llmd/kv/index.h"

namespace llmd::kv {
namespace {

constexpr size_t kShards = 64;
constexpr size_t kMaxEndpoints = 1 << 16;
constexpr size_t kMaxTiers = 256;

// Engines choose their keys: spread them before a shard is chosen.
size_t ShardOf(uint64_t key) {
  return (key * 0x9e3779b97f4a7c15) >> 58;
}

class FlatIndex final : public Index {
 public:
  explicit FlatIndex(FlatIndexOptions options) : options_(options) {
    const size_t each = std::max<size_t>(options.max_keys / kShards, 1);
    for (size_t i = 0; i < kShards; ++i) {
      requests_[i] = std::make_unique<Shard<Holders>>(each);
      engines_[i] = std::make_unique<Shard<Keys>>(each);
    }
  }

  Status Add(std::span<const uint64_t> engine_keys, std::span<const uint64_t> request_keys,
             std::span<const IndexEntry> entries) override {
    if (request_keys.empty() || entries.empty())
      return InvalidArgument("index: expected keys and entries to add");
    std::vector<IndexHolder> holders;
    for (const IndexEntry& entry : entries) {
      holders.push_back(Inside(entry, true));
      if (holders.back().endpoint == kUnknown)
        return ResourceExhausted("index: no more numbers for endpoint '" + entry.endpoint + "'");
    }
    Tie(engine_keys, request_keys);
    for (uint64_t key : request_keys) {
      Shard<Holders>& shard = *requests_[ShardOf(key)];
      std::unique_lock lock(shard.mutex);
      Holders& held = shard.map.At(key);
      for (const IndexHolder& holder : holders) Note(held, holder);
    }
    return OkStatus();
  }

  void Evict(uint64_t key, IndexKey kind, std::span<const IndexEntry> entries) override {
    std::vector<IndexHolder> holders;
    for (const IndexEntry& entry : entries) {
      const IndexHolder holder = Inside(entry, false);
      if (holder.endpoint != kUnknown) holders.push_back(holder);
    }
    if (kind == IndexKey::kRequest) {
      Take(key, holders);
      return;
    }
    Shard<Keys>& shard = *engines_[ShardOf(key)];
    std::unique_lock lock(shard.mutex);
    const Keys* named = shard.map.Find(key);
    if (named == nullptr) return;
    bool empty = true;
    for (uint64_t request_key : *named) empty = Take(request_key, holders) && empty;
    if (empty) shard.map.Erase(key);
  }

  std::optional<uint64_t> RequestKeyOf(uint64_t engine_key) const override {
    const Shard<Keys>& shard = *engines_[ShardOf(engine_key)];
    std::shared_lock lock(shard.mutex);
    const Keys* named = shard.map.Find(engine_key);
    return named == nullptr || named->empty() ? std::nullopt : std::optional(named->back());
  }

  void Clear(std::string_view endpoint) override {
    const size_t number = endpoints_.Find(endpoint);
    if (number == kMaxEndpoints) return;
    for (const auto& shard : requests_) {
      std::unique_lock lock(shard->mutex);
      shard->map.EraseIf([&](uint64_t, Holders& held) {
        std::erase_if(held, [&](const IndexHolder& h) { return h.endpoint == number; });
        return held.empty();
      });
    }
  }

  void Walk(std::span<const uint64_t> keys, const Visit& visit) const override {
    for (size_t i = 0; i < keys.size(); ++i) {
      const Shard<Holders>& shard = *requests_[ShardOf(keys[i])];
      std::shared_lock lock(shard.mutex);
      const Holders* held = shard.map.Find(keys[i]);
      if (held == nullptr || !visit(i, *held)) return;
    }
  }

  uint32_t EndpointNumber(std::string_view endpoint) override {
    const size_t number = endpoints_.NumberOf(endpoint);
    return number == kMaxEndpoints ? kUnknown : static_cast<uint32_t>(number);
  }
  std::string TierName(uint16_t tier) const override { return tiers_.NameOf(tier); }
  size_t size() const override {
    size_t total = 0;
    for (const auto& shard : requests_) {
      std::shared_lock lock(shard->mutex);
      total += shard->map.size();
    }
    return total;
  }

 private:
  using Holders = std::vector<IndexHolder>;  // oldest first, never empty
  using Keys = std::vector<uint64_t>;
  template <typename Value>
  struct Shard {
    explicit Shard(size_t most) : map(most) {}
    mutable std::shared_mutex mutex;
    ClockMap<Value> map;  // guarded by mutex
  };

  // endpoint = kUnknown when a name has no number.
  IndexHolder Inside(const IndexEntry& entry, bool make) {
    const size_t endpoint =
        make ? endpoints_.NumberOf(entry.endpoint) : endpoints_.Find(entry.endpoint);
    const size_t tier = make ? tiers_.NumberOf(entry.tier) : tiers_.Find(entry.tier);
    if (endpoint == kMaxEndpoints || tier == kMaxTiers) return {.endpoint = kUnknown};
    return {static_cast<uint32_t>(endpoint), static_cast<uint16_t>(tier), entry.speculative,
            entry.group};
  }

  void Note(Holders& held, const IndexHolder& holder) const {
    std::erase(held, holder);
    if (held.size() >= std::max<size_t>(options_.max_holders_per_key, 1)) held.erase(held.begin());
    held.push_back(holder);
  }

  void Tie(std::span<const uint64_t> engine_keys, std::span<const uint64_t> request_keys) {
    if (engine_keys.empty()) return;
    const size_t n = std::max(engine_keys.size(), request_keys.size());
    for (size_t i = 0; i < n; ++i) {
      const uint64_t engine_key = engine_keys[i * engine_keys.size() / n];
      const uint64_t request_key = request_keys[i * request_keys.size() / n];
      Shard<Keys>& shard = *engines_[ShardOf(engine_key)];
      std::unique_lock lock(shard.mutex);
      Keys& named = shard.map.At(engine_key);
      std::erase(named, request_key);
      named.push_back(request_key);
    }
  }

  // True when nobody holds the key afterwards.
  bool Take(uint64_t key, std::span<const IndexHolder> holders) {
    Shard<Holders>& shard = *requests_[ShardOf(key)];
    std::unique_lock lock(shard.mutex);
    Holders* held = shard.map.Find(key);
    if (held == nullptr) return true;
    for (const IndexHolder& holder : holders) std::erase(*held, holder);
    if (!held->empty()) return false;
    shard.map.Erase(key);
    return true;
  }

  const FlatIndexOptions options_;
  Names endpoints_{kMaxEndpoints}, tiers_{kMaxTiers};
  std::array<std::unique_ptr<Shard<Holders>>, kShards> requests_;
  std::array<std::unique_ptr<Shard<Keys>>, kShards> engines_;
};

}  // namespace

std::unique_ptr<Index> MakeFlatIndex(FlatIndexOptions options) {
  return std::make_unique<FlatIndex>(options);
}

}  // namespace llmd::kv
