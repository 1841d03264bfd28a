// A model without arithmetic that notices every mistake of the engine: the mark it writes for a
// token chains the mark of the token before it, read back through the block table, and the logits
// are a hash of all marks in the context. A wrong slot, a stale block or a wrong table changes the
// tokens. Reference() says what is right without any pool.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#include "llmd/engine/model.h"

namespace llmd::engine {

class FakeModel final : public Model {
 public:
  using Hook = std::function<Status(const StepBatch&)>;

  explicit FakeModel(int vocab = 101, int max_position = 256, int max_tokens = 64)
      : max_tokens_(max_tokens) {
    config_.architecture = "fake";
    config_.name = "fake-model";
    config_.layers = config_.kv_heads = config_.heads = config_.head_dim = 1;
    config_.vocab = vocab;
    config_.max_position = max_position;
  }

  ModelConfig& mutable_config() { return config_; }
  // Called at the start of every step on the engine thread; an error is Forward's.
  void SetHook(Hook hook) {
    std::lock_guard lock(mutex_);
    hook_ = std::move(hook);
  }

  const ModelConfig& config() const override { return config_; }
  KvGeometry kv_geometry(int block_size) const override {
    return {1, 1, 1, block_size, 4};
  }  // 8 bytes a token
  Status AttachKv(std::byte* pool, size_t stride, int num_blocks, int block_size) override {
    pool_ = pool;
    stride_ = stride;
    num_blocks_ = num_blocks;
    block_size_ = block_size;
    return OkStatus();
  }
  int max_tokens_per_step() const override { return max_tokens_; }
  std::string Describe() const override { return "fake"; }

  Status Forward(const StepBatch& batch, std::span<float> logits) override {
    Hook hook;
    {
      std::lock_guard lock(mutex_);
      hook = hook_;
    }
    if (hook) {
      if (Status s = hook(batch); !s.ok()) {
        Scribble(batch);
        return s;
      }
    }
    if (Status s = Check(batch, logits); !s.ok()) return s;
    for (size_t s = 0; s < batch.context_len.size(); ++s) WriteMarks(batch, s);
    for (size_t r = 0; r < batch.logit_rows.size(); ++r) WriteLogits(batch, r, logits);
    return OkStatus();
  }

  // What greedy decoding must give.
  std::vector<int32_t> Reference(std::vector<int32_t> tokens, int n) const {
    const size_t prompt = tokens.size();
    for (int i = 0; i < n; ++i) tokens.push_back(Best(ContextHash(tokens)));
    return {tokens.begin() + prompt, tokens.end()};
  }
  std::vector<float> ReferenceRow(const std::vector<int32_t>& tokens) const {
    std::vector<float> row(config_.vocab);
    for (int v = 0; v < config_.vocab; ++v) row[v] = Logit(ContextHash(tokens), v);
    return row;
  }

 private:
  static uint64_t Mix(uint64_t a, uint64_t b) {
    uint64_t h = (a ^ (b + 0x9e3779b97f4a7c15ull + (a << 6))) * 0xff51afd7ed558ccdull;
    return h ^ (h >> 32);
  }
  static uint64_t Mark(uint64_t before, int32_t token, int position) {
    return Mix(Mix(before, static_cast<uint64_t>(token) + 1), position);
  }
  static float Logit(uint64_t context, int v) {
    return static_cast<float>(Mix(context, v) % 80001) / 10000.0f - 4.0f;
  }

  static uint64_t ContextHash(const std::vector<int32_t>& tokens) {
    uint64_t mark = 0, hash = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      mark = Mark(mark, tokens[i], static_cast<int>(i));
      hash = Mix(hash, mark);
    }
    return hash;
  }
  int32_t Best(uint64_t context) const {
    int32_t best = 0;
    for (int v = 1; v < config_.vocab; ++v) {
      if (Logit(context, v) > Logit(context, best)) best = v;
    }
    return best;
  }

  std::byte* Slot(int64_t slot) {
    return pool_ + slot / block_size_ * stride_ + slot % block_size_ * 8;
  }
  uint64_t Load(const StepBatch& b, size_t s, int position) {
    const int64_t block = b.block_table[s * b.table_width + position / block_size_];
    uint64_t v;
    std::memcpy(&v, Slot(block * block_size_ + position % block_size_), sizeof v);
    return v;
  }

  Status Check(const StepBatch& b, std::span<float> logits) const {
    if (b.tokens.empty() || static_cast<int>(b.tokens.size()) > max_tokens_)
      return Internal("bad step size");
    if (logits.size() != b.logit_rows.size() * config_.vocab) return Internal("bad logits size");
    for (size_t i = 0; i < b.tokens.size(); ++i) {
      const int64_t block = b.slots[i] / block_size_;
      if (block <= 0 || block >= num_blocks_) return Internal("slot outside the pool");
    }
    return OkStatus();
  }
  // A failed step leaves rubbish behind, as a real one may.
  void Scribble(const StepBatch& b) {
    for (const int64_t slot : b.slots) std::memset(Slot(slot), 0xEE, 8);
  }
  void WriteMarks(const StepBatch& b, size_t s) {
    for (int row = b.query_start[s]; row < b.query_start[s + 1]; ++row) {
      const int position = b.positions[row];
      const uint64_t mark =
          Mark(position == 0 ? 0 : Load(b, s, position - 1), b.tokens[row], position);
      std::memcpy(Slot(b.slots[row]), &mark, sizeof mark);
    }
  }
  void WriteLogits(const StepBatch& b, size_t r, std::span<float> logits) {
    const int row = b.logit_rows[r];
    size_t s = 0;
    while (row >= b.query_start[s + 1]) ++s;
    uint64_t hash = 0;
    for (int p = 0; p <= b.positions[row]; ++p) hash = Mix(hash, Load(b, s, p));
    for (int v = 0; v < config_.vocab; ++v) logits[r * config_.vocab + v] = Logit(hash, v);
  }

  ModelConfig config_;
  const int max_tokens_;
  std::byte* pool_ = nullptr;
  size_t stride_ = 0;
  int num_blocks_ = 0, block_size_ = 0;
  std::mutex mutex_;
  Hook hook_;
};

}  // namespace llmd::engine
