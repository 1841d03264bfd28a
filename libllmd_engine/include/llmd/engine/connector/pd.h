// Prefill/decode hand-over over a kv::Agent. The lending side keeps the full blocks of a finished
// prefill leg owned until the reader has them or the lease ends; the reading side pulls the blocks
// a decode request lacks, once prompt and model are proved to be the lender's. Owned by the engine
// thread, which calls everything but Discard. The agent's callbacks only call the event functions
// given to the constructor, which must be thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "llmd/clock.h"
#include "llmd/engine/connector/connector.h"
#include "llmd/engine/engine.h"
#include "llmd/engine/kv_pool.h"
#include "llmd/kv/region.h"
#include "llmd/kv/transfer.h"
#include "llmd/log.h"
#include "llmd/metrics.h"

namespace llmd::engine {

class PdConnector final : public Connector {
 public:
  struct Events {
    std::function<void(uint64_t sequence_number, kv::PullResult result)> pulled;
    std::function<void(std::string lease_id, bool read)> released;
  };
  // `pool` is the bookkeeping of the blocks that the agent's region holds, and outlives the
  // connector.
  PdConnector(std::string engine_id, std::string host, KvPool& pool, Events events, Logger logger);

  // Starts the agent over `region`, which outlives the connector. UNIMPLEMENTED for connectors
  // other than NixlConnector.
  Status Start(const KvTransferOptions& options, kv::Compatibility compatibility,
               kv::Region& region, MetricsRegistry& metrics, const Clock& clock);
  // Or: with an agent made elsewhere.
  void Attach(std::unique_ptr<kv::Agent> agent) { agent_ = std::move(agent); }

  int ExternalTokens(const Sequence& sequence, int local_tokens) const override;
  void StartLoad(Sequence& sequence, int local_tokens, int external_tokens) override;

  // Why blocks are not taken.
  enum class Refusal {
    kNone,
    kSeveral,        // the request has several prompts or choices
    kUnproved,       // the lender does not say what its blocks were computed from
    kPromptDiffers,  // from other tokens
    kModelDiffers,   // by another model, or in another layout
  };
  // Whether the lender's blocks are those of `prompt`. Thread-safe.
  Refusal Check(const TransferParams& params, std::span<const TokenId> prompt) const;
  // Counts, tells the lender, and warns once for each lender and reason. Thread-safe.
  void Refuse(Refusal why, const TransferParams& params, const std::string& request_id);
  void AddRefusals(EngineStats& stats) const;  // thread-safe

  // A prefill leg ended with `length` or `stop`: lends its full blocks, which leave the sequence
  // for the lease, and gives the object for the decode engine. Nothing when they cannot be lent;
  // the sequence then keeps its blocks.
  std::optional<json::Value> Lend(Sequence& sequence);
  // The lease ended: its blocks lose their owner. Unknown ids are ignored.
  void Release(const std::string& lease_id);
  // A decode request will not read: tells the lender, so that it need not wait for the lease to
  // end. Thread-safe.
  void Discard(const TransferParams& params);

  int pinned_blocks() const { return pinned_blocks_; }
  kv::Agent& agent() { return *agent_; }
  void Stop();

 private:
  const std::string engine_id_;
  const std::string host_;
  KvPool& pool_;
  const Events events_;
  const Logger logger_;
  std::unique_ptr<kv::Agent> agent_;
  std::string fingerprint_;                         // as leases carry it
  std::array<std::atomic<uint64_t>, 5> refused_{};  // by Refusal
  std::mutex mutex_;
  std::set<std::pair<Refusal, std::string>> warned_;  // guarded by mutex_; bounded
  std::unordered_map<std::string, std::vector<int32_t>> leases_;
  uint64_t next_lease_ = 0;
  int pinned_blocks_ = 0;
};

}  // namespace llmd::engine
