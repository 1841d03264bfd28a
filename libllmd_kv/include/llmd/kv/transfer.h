// Moves KV blocks between engines. An Agent owns the lender's side (leases on blocks of its region)
// and the reader's side (pulls). Two transports behind one interface: mapped memfd on the same
// host, TCP. Wire format: docs/wire/transfer.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "llmd/clock.h"
#include "llmd/kv/region.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::kv {

// What two engines must agree on before bytes may move; compared field by field so that an error
// names the field.
struct Compatibility {
  std::string model;     // name and weights fingerprint
  std::string kv_dtype;  // "bf16", "f32"
  std::string layout;    // "block:layer,kv,head,token,dim"
  int32_t layers = 0, kv_heads = 0, head_dim = 0, block_size = 0;
  std::string hash_algorithm;
};

struct AgentOptions {
  std::string engine_id;
  std::string host = "127.0.0.1";  // listen and announce
  uint16_t port = 0;               // 0 = any free one
  std::string transport = "auto";  // reader's choice: auto (memfd when the abstract socket of the
                                   // peer answers), memfd, tcp
  std::string require;             // refuse other lanes: "memfd", "tcp" or ""
  Duration lease = std::chrono::seconds(30);
  Duration connect_timeout = std::chrono::seconds(2);
  Duration read_timeout = std::chrono::seconds(10);
  size_t max_leases = 4096;
  Compatibility compatibility;
  // Fault injection for tests; empty in production. Runs for each block (by its position in the
  // list) between its copy and the second check of its generation: at the reader on the memfd lane,
  // at the lender on TCP.
  std::function<void(size_t position)> before_recheck;
};

struct PullRequest {
  std::string remote_engine_id;
  std::string remote_host;
  uint16_t remote_port = 0;
  std::string remote_request_id;       // the lender's lease
  std::vector<int32_t> remote_blocks;  // may be empty: notify only
  std::vector<int32_t> local_blocks;   // same length
};

struct PullResult {
  Status status;             // ok, or why; ABORTED "stale block N" when the fence fired
  std::string lane;          // "memfd" or "tcp"
  uint64_t blocks_read = 0;  // counted in the copy loop
  uint64_t bytes = 0;
  Duration elapsed{};
  std::vector<int32_t> failed;  // indexes into remote_blocks that did not arrive; everything before
                                // the first is good
};

// Thread-safe. Callbacks run on the agent's threads.
class Agent {
 public:
  // Called when a lender's lease ended: the blocks may be freed. `read` is false when it expired or
  // was cancelled.
  using ReleaseFn = std::function<void(const std::string& request_id, bool read)>;

  // Starts the listener (TCP and the abstract Unix socket named by engine id). `region` must
  // outlive the agent. ALREADY_EXISTS naming host:port when in use.
  static StatusOr<std::unique_ptr<Agent>> Start(Region& region, AgentOptions options,
                                                ReleaseFn on_release, Logger logger,
                                                MetricsRegistry& metrics, const Clock& clock);
  virtual ~Agent() = default;

  virtual uint16_t port() const = 0;
  // Lender: pins `blocks` for one reader under `request_id`. RESOURCE_EXHAUSTED over max_leases.
  virtual Status Lend(const std::string& request_id, std::vector<int32_t> blocks) = 0;
  // Lender: ends a lease now (no ReleaseFn call).
  virtual void Revoke(const std::string& request_id) = 0;
  virtual size_t leases() const = 0;

  // Reader: copies the blocks into our region and tells the lender. `done` is called once, always,
  // within connect_timeout
  // + read_timeout; on the caller's thread only when the queue is full or the agent is stopped,
  // else on an agent's thread.
  virtual void Pull(PullRequest request, std::function<void(PullResult)> done) = 0;
  // Ends leases that are over by the clock; also run by the agent's own timer. For tests with a
  // FakeClock.
  virtual void ExpireLeases() = 0;
  // Cancels pulls (their callbacks run with CANCELLED) and joins the threads; leases end without
  // ReleaseFn. Not from a callback. The destructor stops too.
  virtual void Stop() = 0;
};

// Tells a lender that nobody will come for this lease: for routers whose decode leg never started.
// Blocks up to `timeout`. NOT_FOUND when the lease is over already.
Status ReleaseLease(const std::string& engine_id, const std::string& host, uint16_t port,
                    const std::string& request_id, Duration timeout);

}  // namespace llmd::kv
