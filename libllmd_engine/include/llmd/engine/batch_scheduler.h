// Decides which sequences run in the next step and in which blocks: continuous batching with
// chunked prefill, prefix caching and pre-emption by recompute. The rules and their order are
// vLLM's (vllm/v1/core/sched/scheduler.py). Plain code: no clock, no threads, no I/O. Owned by the
// engine thread; sequences are borrowed until Remove or Finish.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "llmd/engine/connector/connector.h"
#include "llmd/engine/kv_pool.h"
#include "llmd/engine/sequence.h"
#include "llmd/kv/block_hash.h"

namespace llmd::engine {

struct SchedulerOptions {
  int max_num_seqs = 128;
  int max_num_batched_tokens = 2048;
  int max_model_len = 0;
  bool enable_chunked_prefill = true;
  int long_prefill_token_threshold = 0;  // 0 = off
  bool priority = false;                 // else first come, first served
  int prompt_logprob_rows = 64;          // rows per step spent on prompt logprobs
};

struct ScheduledSequence {
  Sequence* sequence = nullptr;
  int start = 0;  // first token of the chunk
  int num_tokens = 0;
  bool samples = false;  // the chunk ends at the last token: one is sampled behind it
};

struct StepPlan {
  std::vector<ScheduledSequence> items;  // running ones first, then newly admitted ones
  std::vector<Sequence*> preempted;
  int num_tokens = 0;
};

struct SchedulerCounters {
  uint64_t preemptions = 0;
  uint64_t prefix_queries = 0, prefix_hits = 0;  // tokens
  uint64_t prompt_tokens = 0, prompt_tokens_local_cache = 0, prompt_tokens_remote = 0,
           prompt_tokens_local_compute = 0;
};

class BatchScheduler {
 public:
  // `connector` may be null. `hasher` may be null when the pool does not cache. All are borrowed.
  BatchScheduler(const SchedulerOptions& options, KvPool& pool, const kv::EngineHasher* hasher,
                 Connector* connector);

  // Queues a sequence whose tokens hold its prompt.
  void Add(Sequence* sequence);
  // Plans a step and counts its tokens as computed. The plan is valid until the next call.
  const StepPlan& Schedule();
  // The pull of a kWaitingForRemote sequence ended: the first `good_tokens` behind its local prefix
  // are in its blocks.
  void LoadFinished(Sequence* sequence, int good_tokens);
  // Takes the sequence out of all queues and leaves its blocks with it.
  void Remove(Sequence* sequence);
  // Gives the sequence's blocks back.
  void FreeBlocks(Sequence* sequence);
  // The step of `plan` failed in the model: what it claimed to have computed must not be found in
  // the cache.
  void DiscardStep(const StepPlan& plan);

  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size() + ready_.size()); }
  int num_waiting_for_remote() const { return static_cast<int>(loading_.size()); }
  const SchedulerCounters& counters() const { return counters_; }
  const std::vector<Sequence*>& running() const { return running_; }

 private:
  using Queue = std::deque<Sequence*>;

  void ScheduleRunning();
  void ScheduleWaiting();
  bool AdmitHead(Queue& queue);
  bool AdmitLoad(Queue& queue, Sequence* s, int local, int external);
  int ChunkSize(const Sequence& s, int computed) const;
  int WaitingChunk(const Sequence& s, int computed) const;
  bool AllocateRunning(Sequence* s, int num_tokens);
  bool AllocateWaiting(Sequence* s, int local, int num_tokens);
  Sequence* PickVictim() const;
  void Preempt(Sequence* victim);
  void Unschedule(Sequence* s);
  void Emit(Sequence* s, int num_tokens);
  void Commit(Sequence* s, int upto_tokens);
  void CountPrompt(Sequence* s, int local);
  void Enqueue(Queue& queue, Sequence* s, bool front);
  bool Before(const Sequence* a, const Sequence* b) const;
  Queue* NextQueue();
  int BlocksFor(int num_tokens) const {
    return (num_tokens + pool_.block_size() - 1) / pool_.block_size();
  }

  const SchedulerOptions options_;
  KvPool& pool_;
  const kv::EngineHasher* const hasher_;
  Connector* const connector_;
  std::vector<Sequence*> running_;
  Queue waiting_;                   // never computed, or pre-empted
  Queue ready_;                     // their remote KV has arrived (vLLM: skipped_waiting)
  std::vector<Sequence*> loading_;  // kWaitingForRemote
  std::vector<int32_t> hits_;       // scratch: cached blocks of the sequence being admitted
  StepPlan plan_;
  int budget_ = 0;
  int logprob_rows_left_ = 0;
  SchedulerCounters counters_;
};

// Appends the digests of the full blocks of `tokens` that are not in `digests` yet.
void ExtendDigests(const kv::EngineHasher& hasher, std::span<const int32_t> tokens, int block_size,
                   const std::string& cache_salt, std::vector<kv::Digest>& digests);

}  // namespace llmd::engine
