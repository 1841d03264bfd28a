// One reader's connection as the lender sees it: frames in, answers and block streams out, never
// blocking. Owned by the server's thread.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "llmd/kv/transfer.h"
#include "transfer/lease_table.h"
#include "transfer/socket.h"
#include "transfer/wire.h"

namespace llmd::kv {

// Blocks under way over TCP. `parts` are what is left of the batch [begin, end).
struct BlockStream {
  uint32_t tag = 0;
  std::string request_id;
  wire::Read read;
  std::vector<uint64_t> generations;
  size_t begin = 0, end = 0;
  std::vector<iovec> parts;
  size_t next_part = 0;
  std::vector<uint32_t> stale;
};

class Connection {
 public:
  Connection(UniqueFd fd, bool local, const Region& region, const AgentOptions& options,
             LeaseTable& leases);

  // Does what can be done now, at most a few MiB. False when the connection is over; why() says
  // why.
  bool OnReadable();
  bool OnWritable();
  bool wants_write() const { return !out_.empty() || stream_.has_value(); }
  // Time since which it has neither finished its handshake nor taken what is owed to it; nothing
  // when all is well.
  std::optional<std::chrono::steady_clock::time_point> waiting_since() const;
  const Status& why() const { return why_; }

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;

  bool End(Status why);
  bool TakeFrames();
  Status Handle(const wire::FrameHeader& frame, std::string_view payload);
  Status HandleHello(uint32_t tag, std::string_view payload);
  Status HandleRead(uint32_t tag, std::string_view payload);
  Status HandleDone(uint32_t tag, std::string_view payload);
  void Reply(wire::Type type, uint32_t tag, std::string_view payload) {
    out_ += wire::Frame(type, tag, payload);
  }
  void ReplyError(uint32_t tag, const Status& status) {
    Reply(wire::Type::kError, tag, wire::EncodeError(status));
  }
  // False on a broken connection; sets *blocked when the socket takes no more.
  bool SendOut(bool* blocked);
  bool SendParts(bool* blocked);
  void StartBatch();
  void FinishBatch();
  bool Stale(size_t position) const;

  const UniqueFd fd_;
  const bool local_;
  const Region& region_;
  const AgentOptions& options_;
  LeaseTable& leases_;
  const SteadyTime born_ = std::chrono::steady_clock::now();
  SteadyTime progress_ = born_;
  bool greeted_ = false, reads_ = false, pass_fd_ = false, closing_ = false;
  std::string in_, out_;
  std::optional<BlockStream> stream_;
  std::vector<std::byte> zeros_;  // sent in place of a block that is known to be stale
  Status why_;
};

}  // namespace llmd::kv
