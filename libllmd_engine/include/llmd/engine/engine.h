// The inference engine: continuous batching over a paged KV pool with prefix caching, chunked
// prefill, pre-emption and prefill/decode hand-over. One engine = one model replica = one engine
// thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "llmd/clock.h"
#include "llmd/engine/model.h"
#include "llmd/engine/request.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::engine {

// Prefill/decode hand-over (docs/wire/kv-transfer-params.md). Off when connector is "".
struct KvTransferOptions {
  std::string connector;           // "NixlConnector" meaning ours
  std::string transport = "auto";  // auto, memfd, tcp
  std::string require;             // refuse any other lane than this one; "" = any
  Duration lease = std::chrono::seconds(30);
  std::string side_channel_host = "127.0.0.1";
  uint16_t side_channel_port = 0;  // 0 = any free one
};

struct EngineOptions {
  std::string engine_id;  // "" = a fresh UUID
  int block_size = 16;
  size_t kv_cache_bytes = 256 << 20;  // or num_blocks
  int num_blocks = 0;                 // overrides kv_cache_bytes
  int max_model_len = 0;              // 0 = the model's
  int max_num_seqs = 128;
  int max_num_batched_tokens = 2048;
  int max_waiting = 4096;  // above: RESOURCE_EXHAUSTED
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;
  int long_prefill_token_threshold = 0;
  std::string scheduling_policy = "fcfs";  // or "priority"
  std::string hash_algorithm = "sha256_cbor";
  uint64_t seed = 0;
  KvTransferOptions kv_transfer;
};

// Thread-safe. Destroying it aborts what runs and joins the thread.
// When Model::Forward fails, the requests of that step end with kError and the engine goes on; with
// INTERNAL or DATA_LOSS (the model itself is broken) all requests end so, healthy() turns false and
// Submit answers UNAVAILABLE.
class Engine {
 public:
  // Allocates and prefaults the pool, starts the thread and, with a connector, the transfer agent.
  static StatusOr<std::unique_ptr<Engine>> Create(std::unique_ptr<Model> model,
                                                  EngineOptions options, Logger logger,
                                                  MetricsRegistry& metrics, const Clock& clock);
  virtual ~Engine() = default;

  // Queues a request; its outputs come through request.on_output, the last with a finish reason.
  // INVALID_ARGUMENT for parameters, RESOURCE_EXHAUSTED when the queue is full, UNAVAILABLE when
  // stopping, ALREADY_EXISTS when the id is in flight: then kv_transfer_params are kept for another
  // try under another id.
  virtual Status Submit(Request request) = 0;
  // Ends a request early; its last output has kAbort. Unknown ids are ignored.
  virtual void Abort(std::string_view id) = 0;
  // A decode request with this kv_transfer_params object was rejected before Submit: tells the
  // prefill engine, so that it need not hold its blocks until the lease ends. Anything else is
  // ignored. (Submit does it for what it rejects.)
  virtual void DiscardTransfer(const json::Value& kv_transfer_params) {}
  // As of the last step; never waits for the engine thread.
  virtual EngineStats Stats() const = 0;
  // True while the engine thread makes progress.
  virtual bool healthy() const = 0;
  virtual const EngineOptions& options() const = 0;
  virtual const Model& model() const = 0;
  // Clears the prefix cache; FAILED_PRECONDITION while blocks are in use.
  virtual Status ResetPrefixCache() = 0;
  // Aborts everything and joins the engine thread.
  virtual void Stop() = 0;
};

}  // namespace llmd::engine
