// The run index (docs/design/kv-index.md). Keys that follow each other are a run, stored once; only
// the first key of a run stands in a hash table. A query compares its keys with a run's and, where
// they part or the run ends, looks its next key up. Holders of a run are spans of blocks with the
// same holder set. Readers see immutable views; one writer at a time replaces them.
//
// Invariants (asserted by CheckInvariants):
//  I1 a key without a parent is the head of a run
//  I2 a key stands in one run at one offset
//  I3 the spans of a view are sorted, not empty, and neighbours differ
//  I4 an offset that nobody holds is a hole; its key stays until the whole tail behind it is empty
//  I5 a reader beside a writer may count too little, never too much
#pragma once

#include <absl/container/flat_hash_map.h>

#include <deque>
#include <mutex>

#include "index/directory.h"
#include "index/engine_map.h"
#include "index/head_table.h"

namespace llmd::kv {

class SnapshotReader;

class RunIndex final : public Index {
 public:
  explicit RunIndex(RunIndexOptions options);
  ~RunIndex() override;

  std::optional<uint64_t> RequestKeyOf(NamespaceId ns, uint64_t engine_key) const override;
  void Score(NamespaceId ns, std::span<const uint64_t> keys, const Candidates& candidates,
             std::span<PrefixMatch> out) const override;
  size_t BlocksOf(EndpointId endpoint) const override;
  IndexStats Stats() const override;
  Status Save(const Sink& sink) const override;
  Status Restore(const Source& source) override;

  // Of the whole index; slow. For tests.
  Status CheckInvariants() const;

 private:
  static constexpr uint32_t kMaxRun = 4096;
  static constexpr uint32_t kNoRun = UINT32_MAX;

  struct Run {
    RunView* view = nullptr;   // null = nobody holds any of it
    uint64_t* keys = nullptr;  // null = gone; its number waits until no engine key names it
    uint32_t length = 0, capacity = 0;
    uint32_t parent = kNoRun, parent_life = 0;  // the run it continues
    uint32_t children = 0;                      // that are there
    uint32_t engine_refs = 0;                   // engine keys that name a block here
    uint32_t life = 0;
    uint16_t space = 0;
    bool sealed = false;  // never grows again: its tail was cut, engine keys may still name it
  };
  // What readers know of a holder: written before a set with it is published.
  struct HolderInfo {
    EndpointId endpoint = EndpointId::kNone;
    TierId tier{};
  };
  struct HolderState {
    uint32_t endpoint = 0;  // the number inside the id
    TierId tier{};
    int32_t group = -1;
    uint64_t blocks = 0;
    uint32_t live_runs = 0;      // that it holds a block of
    std::vector<uint32_t> runs;  // those, and some that it held
  };
  struct Interval {
    uint32_t run, begin, end;
  };
  // A block: run << 12 | offset. With kMany instead the number of a list of blocks.
  using Place = uint64_t;
  static constexpr Place kMany = Place{1} << 47;
  static Place PlaceAt(uint32_t run, uint32_t offset) { return Place{run} << 12 | offset; }
  static uint32_t RunOf(Place place) { return static_cast<uint32_t>(place >> 12); }
  static uint32_t OffsetOf(Place place) { return static_cast<uint32_t>(place & 0xfff); }

  Status DoAdd(const StoredBlocks& blocks, Holder holder) override;
  void DoEvict(NamespaceId ns, std::span<const uint64_t> engine_keys, Holder holder) override;
  void DoEvictChain(NamespaceId ns, std::span<const uint64_t> keys, size_t from,
                    Holder holder) override;
  void DoClear(EndpointId endpoint) override;
  void DoForget(EndpointId endpoint) override;

  // Runs and who holds them (run_index.cc). All but Score take mutex_ first.
  StatusOr<uint32_t> HolderOf(Holder holder, int32_t group);
  std::optional<uint32_t> FindHolder(Holder holder, int32_t group) const;
  void Lay(uint16_t space, std::span<const uint64_t> keys, Place parent);
  void LayAt(uint32_t run, uint32_t begin, uint32_t count, size_t first_key);
  size_t Fresh(uint16_t space, std::span<const uint64_t> keys, size_t room) const;
  uint32_t NewRun(uint16_t space, uint32_t parent);
  void Append(uint32_t id, std::span<const uint64_t> keys);
  void Change(const Interval& at, uint32_t holder, bool add);
  void DropTail(uint32_t id, uint32_t from);
  void Publish(uint32_t id, bool may_cut);
  void CutTail(Run& run, uint32_t length);
  void Die(uint32_t id);
  void FreeRun(uint32_t id);
  bool Held(Place place) const;
  bool There(Place place) const;
  void ForgetRun(uint32_t holder);

  // Engine keys (run_engine_keys.cc).
  static uint64_t EngineKey(NamespaceId ns, uint64_t key) {
    return Mix(key + static_cast<uint64_t>(ns) * 0xa0761d6478bd642fu);
  }
  void Tie(uint64_t engine_key, Place place);
  void TieAll(NamespaceId ns, std::span<const uint64_t> engine_keys);
  Place LastHeld(uint64_t engine_key) const;
  void DropRef(Place place);
  void EvictMany(uint64_t engine_key, Place many, uint32_t holder);
  void FlushEvicted(const Interval& at, uint32_t holder);
  bool KeepEngineKey(uint64_t& value);
  void SweepSome(size_t tables);

  // The budget (run_budget.cc).
  size_t Bytes() const;
  void KeepBudget();
  bool EvictOne();

  Status CheckRun(uint32_t id) const;

  // Snapshots (run_snapshot.cc).
  Status RestoreBody(const Source& source);
  StatusOr<std::vector<const HolderSet*>> RestoreSets(SnapshotReader& in,
                                                      std::span<const uint32_t> holders);
  Status RestoreRuns(SnapshotReader& in, std::span<const HolderSet* const> sets, uint16_t spaces);
  Status RestoreSpans(SnapshotReader& in, std::span<const HolderSet* const> sets, uint32_t length);
  void CountRestored(uint32_t id);
  Status RestoreEngineKeys(SnapshotReader& in);

  static constexpr size_t kChunk = 4096, kChunks = 512;
  const HolderInfo& InfoOf(uint32_t holder) const {
    return chunks_[holder / kChunk].load(std::memory_order_acquire)[holder % kChunk];
  }

  const RunIndexOptions options_;
  mutable std::mutex mutex_;  // one writer at a time; guards all below but for what readers may see
  mutable Epochs epochs_;     // outlives what it counts
  HeadTable heads_{epochs_};  // readers
  std::array<std::atomic<HolderInfo*>, kChunks> chunks_{};  // readers
  HolderSets sets_{epochs_};
  EngineMap engines_{epochs_};
  std::deque<Run> runs_;
  std::vector<uint32_t> free_runs_;
  std::deque<HolderState> holders_;
  absl::flat_hash_map<uint64_t, uint32_t> holder_numbers_;  // by endpoint, tier, group
  std::vector<std::vector<uint32_t>> holders_of_;           // by the number inside an endpoint's id
  std::deque<std::pair<uint32_t, uint64_t>> resting_;       // holders to be reused, and epoch marks
  std::vector<std::vector<Place>> lists_;  // of engine keys that name several blocks
  std::vector<uint32_t> free_lists_;
  size_t stale_ = 0;       // engine keys that name blocks which are gone, about
  size_t swept_ = 0;       // tables of the sweep under way
  size_t hand_ = 0;        // of the clock over runs
  size_t list_bytes_ = 0;  // of the lists of holders and engine keys
  size_t holder_blocks_ = 0, blocks_ = 0, live_runs_ = 0, evicted_ = 0;
  // Scratch of one operation.
  std::vector<RunSpan> pieces_;
  std::vector<Place> places_;
  std::vector<Interval> intervals_;
  std::vector<uint64_t> pending_keys_;
  std::vector<void*> replaced_;  // arrays to retire once the view that used them is out of reach
};

}  // namespace llmd::kv
