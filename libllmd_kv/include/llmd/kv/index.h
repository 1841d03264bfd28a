// Which endpoints hold which KV blocks, as their events say: the state behind precise prefix
// routing. Blocks are named by request keys, the router's own chained hashes of tokens
// (request_keys.h); engines name blocks by keys of their own, which Add ties to ours. A prompt's
// keys form a chain: a key stands for its block and all before it.
//
// Three backends: FlatIndex (hash maps; llm-d's in-memory index; the reference for tests), the
// cost-aware one (the same under a byte budget) and RunIndex (runs of consecutive keys; reads
// without locks; what to use). docs/design/kv-index.md draws them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::kv {

// An endpoint's number in one index. Numbers of endpoints that were removed are given out again
// under another id: an old id finds nothing.
enum class EndpointId : uint32_t { kNone = UINT32_MAX };
// Where a block lies. kSpeculative: our own guess that the endpoint will have it.
enum class TierId : uint8_t { kSpeculative = 0 };
// A number for an IndexNamespace.
enum class NamespaceId : uint16_t {};

inline constexpr size_t kMaxEndpoints = 1 << 16;  // at a time
inline constexpr size_t kMaxTiers = 8;            // kSpeculative is one
inline constexpr size_t kMaxNamespaces = 4096;

// What keys mean. Equal numbers under another model, adapter or algorithm are other blocks; engine
// keys are told apart by group as well. A query sees the blocks of every group.
struct IndexNamespace {
  std::string model;
  std::string lora;
  int32_t group = -1;     // KV cache group; -1 = none
  std::string algorithm;  // of the request keys
  friend auto operator<=>(const IndexNamespace&, const IndexNamespace&) = default;
};

struct Holder {
  EndpointId endpoint = EndpointId::kNone;
  TierId tier = TierId::kSpeculative;
};

// Blocks in the order of their tokens.
struct StoredBlocks {
  NamespaceId ns{};
  // The engine key of the block before the first; without one the first begins a prompt.
  std::optional<uint64_t> parent;
  std::span<const uint64_t> keys;
  // Of the same tokens; may be more or fewer, when the engine's blocks have another size: with n
  // the larger count, the i·E/n-th engine key names the i·R/n-th request key. Empty: none (a
  // guess).
  std::span<const uint64_t> engine_keys;
};

// How far an engine's events were applied. The epoch tells its lives apart: it grows whenever the
// engine starts anew.
struct SourcePosition {
  uint64_t epoch = 0;
  uint64_t sequence = 0;
  friend bool operator==(const SourcePosition&, const SourcePosition&) = default;
};

// What an endpoint holds of a prompt from its first block on, without a hole.
struct PrefixMatch {
  double score = 0;     // sum over the blocks of the best weight among the tiers that hold it
  uint32_t blocks = 0;  // in any tier
  std::array<uint32_t, kMaxTiers> tier_blocks{};  // by TierId: in that tier alone
  friend bool operator==(const PrefixMatch&, const PrefixMatch&) = default;
};

// The endpoints a query is about, in the order of its answer. Make one for a set of endpoints and
// keep it; a query allocates nothing. Thread-safe once made.
class Candidates {
 public:
  Candidates() = default;
  explicit Candidates(std::span<const EndpointId> endpoints);
  size_t size() const { return size_; }
  static constexpr uint32_t kAbsent = UINT32_MAX;
  // The endpoint's place in the answer. Of an endpoint given twice, the first.
  uint32_t PlaceOf(EndpointId endpoint) const {
    const size_t index = static_cast<uint32_t>(endpoint) & (kMaxEndpoints - 1);
    if (index >= places_.size() || places_[index].endpoint != endpoint) return kAbsent;
    return places_[index].place;
  }
  // Calls each(first place, other place) for endpoints given more than once.
  template <typename Each>
  void ForRepeated(Each each) const {
    for (const auto& [first, other] : repeated_) each(first, other);
  }

 private:
  struct Place {
    EndpointId endpoint = EndpointId::kNone;
    uint32_t place = kAbsent;
  };
  std::vector<Place> places_;  // by the number inside the id
  std::vector<std::pair<uint32_t, uint32_t>> repeated_;
  size_t size_ = 0;
};

struct IndexStats {
  size_t holder_blocks = 0;  // pairs of a block and a holder
  size_t blocks = 0;         // that somebody holds
  size_t bytes = 0;          // of memory; 0 = not counted
  size_t runs = 0;           // RunIndex only
  size_t evicted = 0;        // holder-blocks dropped for the budget so far
};

struct IndexOptions {
  // What a block in a tier counts; tiers that are not named count 1. At most kMaxTiers - 1 names.
  std::map<std::string, double, std::less<>> tier_weights = {{"gpu", 1.0}, {"cpu", 0.8}};
  // Add refuses blocks of an endpoint that holds so many (more than its engine has: events were
  // lost). 0 = no cap.
  size_t max_blocks_per_endpoint = 0;
};

// Thread-safe. Events of one endpoint must come from one thread at a time, in their order.
class Index {
 public:
  virtual ~Index();

  // The endpoint's id, given out when the name is new. RESOURCE_EXHAUSTED above kMaxEndpoints at a
  // time. An engine with data-parallel ranks behind one address is one endpoint per rank.
  StatusOr<EndpointId> AddEndpoint(std::string_view name);
  // kNone when unknown.
  EndpointId FindEndpoint(std::string_view name) const;
  std::string EndpointName(EndpointId endpoint) const;
  // Clears it and takes the id back.
  void RemoveEndpoint(EndpointId endpoint);
  // RESOURCE_EXHAUSTED above kMaxTiers. "" is kSpeculative.
  StatusOr<TierId> AddTier(std::string_view name);
  std::string TierName(TierId tier) const;
  StatusOr<NamespaceId> AddNamespace(const IndexNamespace& ns);

  // Notes that `holder` has the blocks. INVALID_ARGUMENT: no keys, unknown endpoint, or a parent
  // without engine keys. NOT_FOUND: nobody holds the parent (keep the event until somebody does).
  // RESOURCE_EXHAUSTED: the cap. FAILED_PRECONDITION: `epoch` is over; a later one than known first
  // clears the endpoint of its last life's blocks (0 is no life: the first one clears nothing).
  // Guesses have no epoch.
  Status Add(const StoredBlocks& blocks, Holder holder, uint64_t epoch = 0);
  // Takes `holder` from the blocks that engine keys name; unknown keys are no error. Errors as
  // Add's for the endpoint and the epoch.
  Status Evict(NamespaceId ns, std::span<const uint64_t> engine_keys, Holder holder,
               uint64_t epoch = 0);
  // Takes `holder` from a prompt's blocks, `from` on. `keys` begin with the prompt's first.
  Status EvictChain(NamespaceId ns, std::span<const uint64_t> keys, size_t from, Holder holder);
  // Forgets all that an endpoint holds, in every tier.
  Status Clear(EndpointId endpoint);

  // The last request key that an engine key names among those that somebody holds.
  virtual std::optional<uint64_t> RequestKeyOf(NamespaceId ns, uint64_t engine_key) const = 0;

  // out[i] = the match of the i-th candidate; out.size() == candidates.size(). Allocates nothing
  // once its thread has seen as many candidates and holders.
  virtual void Score(NamespaceId ns, std::span<const uint64_t> keys, const Candidates& candidates,
                     std::span<PrefixMatch> out) const = 0;

  // What was applied of an endpoint's events; the index keeps it for snapshots only.
  SourcePosition Position(EndpointId endpoint) const;
  void NoteSequence(EndpointId endpoint, uint64_t sequence);
  virtual size_t BlocksOf(EndpointId endpoint) const = 0;
  virtual IndexStats Stats() const = 0;

  // A snapshot, in pieces in order; `sink` returning an error ends it with that error. Writers wait
  // meanwhile, readers do not. UNIMPLEMENTED: only RunIndex keeps snapshots.
  using Sink = std::function<Status(std::span<const uint8_t>)>;
  virtual Status Save(const Sink& sink) const;
  // Fills the bytes asked for, all of them.
  using Source = std::function<Status(std::span<uint8_t>)>;
  // Into an index that holds nothing and knows no names. DATA_LOSS: not a snapshot, or a damaged
  // one; the index is then good for nothing but its end.
  virtual Status Restore(const Source& source);

  class Directory;

 protected:
  explicit Index(const IndexOptions& options);
  const Directory& directory() const { return *directory_; }
  Directory& directory() { return *directory_; }

 private:
  virtual Status DoAdd(const StoredBlocks& blocks, Holder holder) = 0;
  virtual void DoEvict(NamespaceId ns, std::span<const uint64_t> engine_keys, Holder holder) = 0;
  virtual void DoEvictChain(NamespaceId ns, std::span<const uint64_t> keys, size_t from,
                            Holder holder) = 0;
  virtual void DoClear(EndpointId endpoint) = 0;
  // Nothing is held by it any more; its number is given out again once this returns.
  virtual void DoForget(EndpointId) {}
  // Ok when events of this life count; begins a new life when it is a later one.
  Status Enter(Holder holder, uint64_t epoch);

  const IndexOptions options_;
  const std::unique_ptr<Directory> directory_;
};

struct FlatIndexOptions : IndexOptions {
  size_t max_keys = 100'000'000;   // request keys, and as many engine keys
  size_t max_holders_per_key = 0;  // the oldest goes; 0 = no cap
};
// In memory: hash maps in 64 shards, each under a lock of its own. What was least recently used
// goes first.
std::unique_ptr<Index> MakeFlatIndex(FlatIndexOptions options = {});

struct CostAwareIndexOptions : IndexOptions {
  size_t max_bytes = size_t{2} << 30;
};
// The same bounded by the bytes of its entries.
std::unique_ptr<Index> MakeCostAwareIndex(CostAwareIndexOptions options = {});

struct RunIndexOptions : IndexOptions {
  // Of all its memory; above it the ends of prompts that nobody asked for go first. 0 = no budget.
  size_t max_bytes = 0;
};
// Runs of consecutive keys, stored once; reads take no lock.
std::unique_ptr<Index> MakeRunIndex(RunIndexOptions options = {});

// Through a file that is there whole or not at all.
Status SaveIndex(const Index& index, const std::string& path);
Status RestoreIndex(Index& index, const std::string& path);

}  // namespace llmd::kv
