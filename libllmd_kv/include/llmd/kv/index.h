// Which endpoints hold which KV blocks, as their events say: the state behind precise prefix
// routing. Keys are the router's own hashes of token blocks (block_hash.h, RequestHasher); engines
// name blocks by keys of their own, which Add ties to ours. Semantics of llm-d's KV block index.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::kv {

// One holding, as an event states it. Two with the same five values are one.
struct IndexEntry {
  std::string endpoint;  // "ip:port"
  std::string tier;      // "gpu", "cpu" …, lower case; "" = not known (speculative)
  bool speculative = false;
  int32_t group = -1;  // KV cache group; -1 = none
};

// The same inside: numbers handed out by the index.
struct IndexHolder {
  uint32_t endpoint = 0;
  uint16_t tier = 0;
  bool speculative = false;
  int32_t group = -1;
  friend bool operator==(const IndexHolder&, const IndexHolder&) = default;
};

enum class IndexKey { kEngine, kRequest };

// Thread-safe. Bounded: what was least recently used goes first.
class Index {
 public:
  virtual ~Index() = default;

  // Notes the entries under every request key. `engine_keys`, when given, are tied to the request
  // keys: with n the larger count, the i·E/n-th engine key names the i·R/n-th request key, so that
  // block sizes may differ. INVALID_ARGUMENT without keys or entries, RESOURCE_EXHAUSTED when
  // endpoint or tier numbers run out.
  virtual Status Add(std::span<const uint64_t> engine_keys, std::span<const uint64_t> request_keys,
                     std::span<const IndexEntry> entries) = 0;
  // Takes the entries from a request key, or from those that an engine key names; the engine key
  // itself goes once they are all empty. Unknown keys are no error.
  virtual void Evict(uint64_t key, IndexKey kind, std::span<const IndexEntry> entries) = 0;
  // The last request key that an engine key names.
  virtual std::optional<uint64_t> RequestKeyOf(uint64_t engine_key) const = 0;
  // Forgets all that an endpoint holds, in every tier.
  virtual void Clear(std::string_view endpoint) = 0;

  // Visits the holders of `keys` in order until `visit` returns false or nobody holds a key. From
  // inside only EndpointNumber and TierName may be called.
  using Visit = std::function<bool(size_t key, std::span<const IndexHolder> holders)>;
  virtual void Walk(std::span<const uint64_t> keys, const Visit& visit) const = 0;

  // The number of an endpoint name; kUnknown when no more are left.
  static constexpr uint32_t kUnknown = UINT32_MAX;
  virtual uint32_t EndpointNumber(std::string_view endpoint) = 0;
  virtual std::string TierName(uint16_t tier) const = 0;
  // Request keys held.
  virtual size_t size() const = 0;
};

struct FlatIndexOptions {
  size_t max_keys = 100'000'000;    // request keys, and as many engine keys
  size_t max_holders_per_key = 10;  // the oldest goes
};
// In memory: hash maps in 64 shards, each under a lock of its own.
std::unique_ptr<Index> MakeFlatIndex(FlatIndexOptions options = {});

}  // namespace llmd::kv
