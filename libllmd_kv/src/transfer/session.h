// The reader's connection to one lender: handshake, then one question at a time. Blocking with
// deadlines; used by one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmd/kv/transfer.h"
#include "transfer/socket.h"
#include "transfer/wire.h"

namespace llmd::kv {

struct Peer {
  std::string engine_id, host;
  uint16_t port = 0;
  friend auto operator<=>(const Peer&, const Peer&) = default;
};

// Keeps one mapping per engine and epoch. Thread-safe implementations only.
class RegionCache {
 public:
  virtual ~RegionCache() = default;
  virtual StatusOr<std::shared_ptr<const MappedRegion>> Get(const std::string& engine_id,
                                                            uint64_t epoch, int fd) = 0;
};

// What became of each position of a read.
struct ReadOutcome {
  Status status;
  std::vector<bool> good;  // by position; only these hold the lender's bytes
  uint64_t blocks_read = 0;
};

class Session {
 public:
  // Picks the lane by options.transport and options.require, connects and shakes hands.
  static StatusOr<std::unique_ptr<Session>> Connect(const Peer& peer, const AgentOptions& options,
                                                    size_t block_bytes, RegionCache& regions,
                                                    const Wait& wait);

  wire::Lane lane() const { return lane_; }
  // Reads remote block i into to[i]. UNAVAILABLE with `good` all false when the connection was lost
  // before the lender answered. After any status but ok, ABORTED, NOT_FOUND and OUT_OF_RANGE the
  // session is of no more use.
  ReadOutcome Read(const std::string& request_id, const std::vector<int32_t>& blocks,
                   const std::vector<std::byte*>& to, const Wait& wait);
  // Tells the lender that the lease is over.
  Status Done(const std::string& request_id, const Wait& wait);

 private:
  struct Reply {
    wire::FrameHeader frame;
    std::string payload;
  };
  Session(const AgentOptions& options, size_t block_bytes)
      : options_(options), block_bytes_(block_bytes) {}
  Status Open(const Peer& peer, const Wait& wait);
  Status Greet(const Peer& peer, RegionCache& regions, const Wait& wait);
  StatusOr<Reply> Ask(wire::Type question, std::string_view payload, wire::Type answer,
                      const Wait& wait);
  Status ReadHeader(wire::FrameHeader* header, const Wait& wait);
  // The payload of `header`'s frame; a kError frame becomes its status.
  StatusOr<Reply> ReadReply(const wire::FrameHeader& header, wire::Type expected, const Wait& wait);
  void CopyMapped(const std::vector<int32_t>& blocks, const std::vector<std::byte*>& to,
                  const std::vector<uint64_t>& generations, const Wait& wait, ReadOutcome& out);
  void ReceiveBlocks(const std::vector<int32_t>& blocks, const std::vector<std::byte*>& to,
                     const Wait& wait, ReadOutcome& out);
  StatusOr<size_t> ReceiveBatch(size_t begin, const std::vector<std::byte*>& to, ReadOutcome& out,
                                const Wait& wait);

  const AgentOptions& options_;
  const size_t block_bytes_;
  UniqueFd fd_;
  UniqueFd passed_;
  wire::Lane lane_ = wire::Lane::kTcp;
  wire::Welcome welcome_;
  std::shared_ptr<const MappedRegion> region_;
  uint32_t tag_ = 0;
};

}  // namespace llmd::kv
