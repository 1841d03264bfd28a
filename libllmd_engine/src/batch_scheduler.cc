#include "llmd/engine/batch_scheduler.h"

#include <algorithm>

#include "llmd/status.h"

namespace llmd::engine {

void ExtendDigests(const kv::EngineHasher& hasher, std::span<const int32_t> tokens, int block_size,
                   const std::string& cache_salt, std::vector<kv::Digest>& digests) {
  const size_t full = tokens.size() / block_size;
  while (digests.size() < full) {
    const bool first = digests.empty();
    kv::ExtraKeys extra;
    if (first) extra.cache_salt = cache_salt;
    digests.push_back(hasher.Hash(first ? hasher.None() : digests.back(),
                                  tokens.subspan(digests.size() * block_size, block_size), extra));
  }
}

BatchScheduler::BatchScheduler(const SchedulerOptions& options, KvPool& pool,
                               const kv::EngineHasher* hasher, Connector* connector)
    : options_(options), pool_(pool), hasher_(hasher), connector_(connector) {
  LLMD_CHECK(!pool.caching() || hasher != nullptr);
  running_.reserve(options.max_num_seqs);
  plan_.items.reserve(options.max_num_seqs);
  plan_.preempted.reserve(options.max_num_seqs);
}

bool BatchScheduler::Before(const Sequence* a, const Sequence* b) const {
  if (options_.priority && a->request.priority != b->request.priority) {
    return a->request.priority < b->request.priority;
  }
  return a->number < b->number;
}

void BatchScheduler::Enqueue(Queue& queue, Sequence* s, bool front) {
  if (front && !options_.priority) {
    queue.push_front(s);
    return;
  }
  auto at = std::upper_bound(queue.begin(), queue.end(), s,
                             [this](auto* a, auto* b) { return Before(a, b); });
  queue.insert(options_.priority ? at : queue.end(), s);
}

void BatchScheduler::Add(Sequence* sequence) {
  sequence->state = SequenceState::kWaiting;
  Enqueue(waiting_, sequence, /*front=*/false);
}

const StepPlan& BatchScheduler::Schedule() {
  plan_.items.clear();
  plan_.preempted.clear();
  plan_.num_tokens = 0;
  budget_ = options_.max_num_batched_tokens;
  logprob_rows_left_ = options_.prompt_logprob_rows;
  ScheduleRunning();
  if (plan_.preempted.empty()) ScheduleWaiting();
  for (ScheduledSequence& item : plan_.items) {
    item.sequence->num_computed = item.start + item.num_tokens;
    item.samples = item.sequence->num_computed == item.sequence->num_tokens();
    plan_.num_tokens += item.num_tokens;
  }
  return plan_;
}

int BatchScheduler::ChunkSize(const Sequence& s, int computed) const {
  int n = s.num_tokens() - computed;
  if (options_.long_prefill_token_threshold > 0)
    n = std::min(n, options_.long_prefill_token_threshold);
  if (s.wants_prompt_logprobs() && computed < s.prompt_len)
    n = std::min(n, std::max(logprob_rows_left_, 1));
  return std::min(n, options_.max_model_len - computed);
}

void BatchScheduler::ScheduleRunning() {
  size_t i = 0;
  while (i < running_.size() && budget_ > 0) {
    Sequence* s = running_[i];
    const int n = std::min(ChunkSize(*s, s->num_computed), budget_);
    if (n <= 0) {
      ++i;
      continue;
    }
    while (!AllocateRunning(s, n)) {
      Sequence* victim = PickVictim();
      const bool before =
          std::find(running_.begin(), running_.begin() + i, victim) != running_.begin() + i;
      Preempt(victim);
      if (victim == s) return;
      if (before) --i;
    }
    Emit(s, n);
    ++i;
  }
}

bool BatchScheduler::AllocateRunning(Sequence* s, int num_tokens) {
  const int need = BlocksFor(s->num_computed + num_tokens) - static_cast<int>(s->blocks.size());
  if (need > 0 && !pool_.Allocate(need, s->blocks)) return false;
  Commit(s, s->num_computed + num_tokens);
  return true;
}

Sequence* BatchScheduler::PickVictim() const {
  if (!options_.priority) return running_.back();
  return *std::max_element(running_.begin(), running_.end(),
                           [this](auto* a, auto* b) { return Before(a, b); });
}

void BatchScheduler::Preempt(Sequence* victim) {
  running_.erase(std::find(running_.begin(), running_.end(), victim));
  Unschedule(victim);
  FreeBlocks(victim);
  victim->state = SequenceState::kPreempted;
  ++victim->preemptions;
  ++counters_.preemptions;
  Enqueue(waiting_, victim, /*front=*/true);
  plan_.preempted.push_back(victim);
}

// Under priorities the victim may have been planned already; what it committed in this plan will
// never be computed.
void BatchScheduler::Unschedule(Sequence* s) {
  auto item = std::find_if(plan_.items.begin(), plan_.items.end(),
                           [s](auto& it) { return it.sequence == s; });
  if (item == plan_.items.end()) return;
  for (size_t b = item->start / pool_.block_size(); b < s->blocks.size(); ++b)
    pool_.Evict(s->blocks[b]);
  budget_ += item->num_tokens;
  plan_.items.erase(item);
}

void BatchScheduler::FreeBlocks(Sequence* sequence) {
  pool_.Free(sequence->blocks);
  sequence->blocks.clear();
  sequence->num_computed = 0;
  sequence->num_committed = 0;
}

void BatchScheduler::Emit(Sequence* s, int num_tokens) {
  plan_.items.push_back({s, s->num_computed, num_tokens, false});
  budget_ -= num_tokens;
  if (s->wants_prompt_logprobs() && s->num_computed < s->prompt_len)
    logprob_rows_left_ -= num_tokens;
}

BatchScheduler::Queue* BatchScheduler::NextQueue() {
  if (ready_.empty()) return waiting_.empty() ? nullptr : &waiting_;
  if (waiting_.empty() || !options_.priority) return &ready_;
  return Before(waiting_.front(), ready_.front()) ? &waiting_ : &ready_;
}

void BatchScheduler::ScheduleWaiting() {
  while (budget_ > 0 && num_running() < options_.max_num_seqs) {
    Queue* queue = NextQueue();
    if (queue == nullptr) return;
    if (AdmitHead(*queue)) continue;
    // What is ready holds blocks, which only its end gives back: it must not wait for somebody more
    // urgent who waits for those.
    if (queue == &ready_ || ready_.empty() || !AdmitHead(ready_)) return;
  }
}

// False when the head has to wait: whoever is behind it waits too.
bool BatchScheduler::AdmitHead(Queue& queue) {
  Sequence* s = queue.front();
  const bool fresh = s->num_computed == 0 && s->blocks.empty();
  hits_.clear();
  int local = s->num_computed;
  int external = 0;
  if (fresh) {
    // Prompt logprobs need the logits of every position, so nothing may be skipped.
    if (pool_.caching() && !s->wants_prompt_logprobs()) {
      pool_.Lookup(s->digests, (s->num_tokens() - 1) / pool_.block_size(), hits_);
      local = static_cast<int>(hits_.size()) * pool_.block_size();
    }
    if (s->remote_pending && connector_ != nullptr)
      external = connector_->ExternalTokens(*s, local);
  }
  if (external > 0) return AdmitLoad(queue, s, local, external);

  const int n = WaitingChunk(*s, local);
  if (n <= 0 || !AllocateWaiting(s, local, n)) return false;
  queue.pop_front();
  if (s->remote_pending && connector_ != nullptr) connector_->StartLoad(*s, local, 0);
  CountPrompt(s, local);
  s->num_computed = local;
  s->state = SequenceState::kRunning;
  Commit(s, local + n);
  running_.push_back(s);
  Emit(s, n);
  return true;
}

// 0 when the sequence must wait for a step with more room.
int BatchScheduler::WaitingChunk(const Sequence& s, int computed) const {
  const int n = ChunkSize(s, computed);
  if (!options_.enable_chunked_prefill && n > budget_) return 0;
  return std::min(n, budget_);
}

// The whole prompt is reserved: a sequence whose KV has arrived must never wait for the blocks of
// its own tail while it holds others'.
bool BatchScheduler::AdmitLoad(Queue& queue, Sequence* s, int local, int external) {
  if (!AllocateWaiting(s, local, s->num_tokens() - local)) return false;
  queue.pop_front();
  CountPrompt(s, local);
  s->num_computed = local;
  s->load_local_tokens = local;
  s->state = SequenceState::kWaitingForRemote;
  loading_.push_back(s);
  connector_->StartLoad(*s, local, external);
  return true;
}

bool BatchScheduler::AllocateWaiting(Sequence* s, int local, int num_tokens) {
  const int held = static_cast<int>(s->blocks.size() + hits_.size());
  const int free_hits = static_cast<int>(std::count_if(
      hits_.begin(), hits_.end(), [&](int32_t b) { return pool_.ref_count(b) == 0; }));
  const int whole = BlocksFor(s->num_tokens()) - held;
  if (whole + free_hits > pool_.num_free()) return false;
  pool_.Touch(hits_);
  s->blocks.insert(s->blocks.end(), hits_.begin(), hits_.end());
  s->num_committed = std::max(s->num_committed, static_cast<int>(hits_.size()));
  const int need = BlocksFor(local + num_tokens) - static_cast<int>(s->blocks.size());
  LLMD_CHECK(need <= 0 || pool_.Allocate(need, s->blocks));
  return true;
}

// Before the step has run: a second sequence scheduled in the same step finds the blocks, because a
// model writes the keys and values of all rows of a layer before any row reads them.
void BatchScheduler::Commit(Sequence* s, int upto_tokens) {
  if (!pool_.caching()) return;
  const int bs = pool_.block_size();
  const int full = std::min(upto_tokens, s->num_tokens()) / bs;
  if (full <= s->num_committed) return;
  ExtendDigests(*hasher_, s->tokens, bs, s->request.cache_salt, s->digests);
  const size_t first = s->num_committed;
  const size_t count = full - s->num_committed;
  pool_.Commit({s->blocks.data() + first, count}, first == 0 ? kv::Digest{} : s->digests[first - 1],
               {s->digests.data() + first, count}, {s->tokens.data() + first * bs, count * bs});
  s->num_committed = full;
}

void BatchScheduler::CountPrompt(Sequence* s, int local) {
  if (s->admitted) return;
  s->admitted = true;
  s->cached_tokens = std::min(local, s->prompt_len);
  counters_.prompt_tokens += s->prompt_len;
  counters_.prompt_tokens_local_cache += s->cached_tokens;
  counters_.prompt_tokens_local_compute += s->prompt_len - s->cached_tokens;
  if (pool_.caching() && !s->wants_prompt_logprobs()) {
    counters_.prefix_queries += s->prompt_len;
    counters_.prefix_hits += s->cached_tokens;
  }
}

void BatchScheduler::LoadFinished(Sequence* sequence, int good_tokens) {
  Sequence* s = sequence;
  std::erase(loading_, s);
  s->num_computed = s->load_local_tokens + good_tokens;
  Commit(s, s->num_computed);
  s->remote_tokens = good_tokens;
  counters_.prompt_tokens_remote += good_tokens;
  counters_.prompt_tokens_local_compute -= good_tokens;
  // The last token is computed again: its logits are wanted.
  if (s->num_computed == s->num_tokens()) --s->num_computed;
  s->state = SequenceState::kWaiting;
  auto at = std::upper_bound(ready_.begin(), ready_.end(), s,
                             [this](auto* a, auto* b) { return Before(a, b); });
  ready_.insert(at, s);
}

void BatchScheduler::Remove(Sequence* sequence) {
  std::erase(running_, sequence);
  std::erase(waiting_, sequence);
  std::erase(ready_, sequence);
  std::erase(loading_, sequence);
  sequence->state = SequenceState::kFinished;
}

void BatchScheduler::DiscardStep(const StepPlan& plan) {
  for (const ScheduledSequence& item : plan.items) {
    const auto& blocks = item.sequence->blocks;
    for (size_t b = item.start / pool_.block_size(); b < blocks.size(); ++b) pool_.Evict(blocks[b]);
  }
}

}  // namespace llmd::engine
