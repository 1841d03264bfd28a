#include "transfer/session.h"

#include <algorithm>
#include <atomic>

#include "transfer/copy.h"
#include "transfer/server.h"

namespace llmd::kv {
namespace {

Status StaleBlock(int32_t block) {
  return Aborted("stale block " + std::to_string(block) +
                 ": the lender gave it away before the read was over");
}

Status Protocol(std::string what) {
  return DataLoss("KV peer broke the protocol: " + std::move(what));
}

// The wait of one connect: its own limit, and never beyond the whole pull's deadline.
Wait ConnectWait(const AgentOptions& options, const Wait& wait) {
  Wait connect = wait;
  connect.deadline =
      std::min(wait.deadline, std::chrono::steady_clock::now() + options.connect_timeout);
  return connect;
}

Status CheckLane(const AgentOptions& options, wire::Lane lane) {
  const std::string_view name = lane == wire::Lane::kMemfd ? "memfd" : "tcp";
  if (options.require.empty() || options.require == name) return OkStatus();
  return FailedPrecondition("KV transfer requires lane '" + options.require + "', only '" +
                            std::string(name) + "' reaches the peer");
}

}  // namespace

StatusOr<std::unique_ptr<Session>> Session::Connect(const Peer& peer, const AgentOptions& options,
                                                    size_t block_bytes, RegionCache& regions,
                                                    const Wait& wait) {
  std::unique_ptr<Session> session(new Session(options, block_bytes));
  const Wait connect = ConnectWait(options, wait);
  LLMD_RETURN_IF_ERROR(session->Open(peer, connect));
  LLMD_RETURN_IF_ERROR(session->Greet(peer, regions, connect));
  return session;
}

Status Session::Open(const Peer& peer, const Wait& wait) {
  if (options_.transport != "tcp") {
    auto local = ConnectAbstract(SocketName(peer.engine_id));
    if (local.ok()) {
      lane_ = wire::Lane::kMemfd;
      fd_ = *std::move(local);
      LLMD_RETURN_IF_ERROR(CheckPeerUser(fd_.get()));
      return CheckLane(options_, lane_);
    }
    if (options_.transport == "memfd")
      return Unavailable("memfd lane: " + local.status().message());
  }
  LLMD_RETURN_IF_ERROR(CheckLane(options_, wire::Lane::kTcp));
  LLMD_ASSIGN_OR_RETURN(fd_, ConnectTcp(peer.host, peer.port, options_.read_timeout, wait));
  return OkStatus();
}

Status Session::Greet(const Peer& peer, RegionCache& regions, const Wait& wait) {
  const wire::Hello hello{peer.engine_id, options_.engine_id, options_.compatibility};
  LLMD_ASSIGN_OR_RETURN(const Reply reply,
                        Ask(wire::Type::kHello, wire::Encode(hello), wire::Type::kWelcome, wait));
  LLMD_ASSIGN_OR_RETURN(welcome_, wire::DecodeWelcome(reply.payload));
  if (welcome_.engine_id != peer.engine_id) {
    return FailedPrecondition("engine id: asked for '" + peer.engine_id + "', '" +
                              welcome_.engine_id + "' answered");
  }
  LLMD_RETURN_IF_ERROR(wire::CheckCompatible(welcome_.compatibility, options_.compatibility));
  if (welcome_.block_bytes != block_bytes_) {
    return FailedPrecondition("incompatible block_bytes: lender has '" +
                              std::to_string(welcome_.block_bytes) + "', reader has '" +
                              std::to_string(block_bytes_) + "'");
  }
  if (lane_ == wire::Lane::kTcp) return OkStatus();
  if (!passed_.ok()) return Protocol("WELCOME came without the region");
  LLMD_ASSIGN_OR_RETURN(region_, regions.Get(peer.engine_id, welcome_.epoch, passed_.get()));
  passed_.Reset();
  if (region_->epoch() != welcome_.epoch)
    return Protocol("the region's epoch is not the one announced");
  if (region_->block_bytes() != block_bytes_)
    return Protocol("the region's block_bytes is not the one announced");
  return OkStatus();
}

Status Session::ReadHeader(wire::FrameHeader* header, const Wait& wait) {
  wire::HeaderBytes bytes;
  if (lane_ == wire::Lane::kMemfd && !region_ && !passed_.ok()) {
    LLMD_RETURN_IF_ERROR(ReceiveWithFd(fd_.get(), bytes, &passed_, wait));
  } else {
    LLMD_RETURN_IF_ERROR(ReceiveAll(fd_.get(), bytes, wait));
  }
  LLMD_ASSIGN_OR_RETURN(*header, wire::DecodeHeader(bytes));
  return OkStatus();
}

StatusOr<Session::Reply> Session::ReadReply(const wire::FrameHeader& header, wire::Type expected,
                                            const Wait& wait) {
  if (header.type != expected && header.type != wire::Type::kError) {
    return Protocol("frame type " + std::to_string(static_cast<int>(header.type)) + " where " +
                    std::to_string(static_cast<int>(expected)) + " was due");
  }
  Reply reply{header, std::string(header.payload_bytes, '\0')};
  auto* bytes = reinterpret_cast<uint8_t*>(reply.payload.data());
  LLMD_RETURN_IF_ERROR(
      ReceiveAll(fd_.get(), std::span<uint8_t>(bytes, reply.payload.size()), wait));
  if (header.type == wire::Type::kError) return wire::DecodeError(reply.payload);
  if (header.tag != tag_)
    return Protocol("answer to question " + std::to_string(header.tag) + ", not " +
                    std::to_string(tag_));
  return reply;
}

StatusOr<Session::Reply> Session::Ask(wire::Type question, std::string_view payload,
                                      wire::Type answer, const Wait& wait) {
  LLMD_RETURN_IF_ERROR(SendAll(fd_.get(), wire::Frame(question, ++tag_, payload), wait));
  wire::FrameHeader header;
  LLMD_RETURN_IF_ERROR(ReadHeader(&header, wait));
  return ReadReply(header, answer, wait);
}

Status Session::Done(const std::string& request_id, const Wait& wait) {
  return Ask(wire::Type::kDone, wire::Encode(wire::Done{request_id}), wire::Type::kDoneOk, wait)
      .status();
}

ReadOutcome Session::Read(const std::string& request_id, const std::vector<int32_t>& blocks,
                          const std::vector<std::byte*>& to, const Wait& wait) {
  ReadOutcome out;
  out.good.assign(blocks.size(), false);
  const auto reply = Ask(wire::Type::kRead, wire::Encode(wire::Read{request_id, lane_, blocks}),
                         wire::Type::kGrant, wait);
  if (!reply.ok()) {
    out.status = reply.status();
    return out;
  }
  const auto grant = wire::DecodeGrant(reply->payload);
  if (!grant.ok() || grant->epoch != welcome_.epoch || grant->generations.size() != blocks.size()) {
    out.status = grant.ok() ? Protocol("GRANT does not fit the question") : grant.status();
  } else if (lane_ == wire::Lane::kMemfd) {
    CopyMapped(blocks, to, grant->generations, wait, out);
  } else {
    ReceiveBlocks(blocks, to, wait, out);
  }
  return out;
}

void Session::CopyMapped(const std::vector<int32_t>& blocks, const std::vector<std::byte*>& to,
                         const std::vector<uint64_t>& generations, const Wait& wait,
                         ReadOutcome& out) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] < 0 || blocks[i] >= region_->num_blocks()) {
      out.status = OutOfRange("remote block " + std::to_string(blocks[i]) + " of " +
                              std::to_string(region_->num_blocks()));
      return;
    }
    if (i % 16 == 0 && wait.stop->IsSet()) {
      out.status = Cancelled("KV transfer: stopped");
      return;
    }
    bool fresh = region_->Generation(blocks[i]) == generations[i];
    if (fresh) {
      CopyBlock(to[i], region_->block(blocks[i]), block_bytes_);
      if (options_.before_recheck) options_.before_recheck(i);
      std::atomic_thread_fence(std::memory_order_acquire);
      fresh = region_->Generation(blocks[i]) == generations[i];
    }
    out.good[i] = fresh;
    out.blocks_read += fresh ? 1 : 0;
    if (!fresh && out.status.ok()) out.status = StaleBlock(blocks[i]);
  }
}

void Session::ReceiveBlocks(const std::vector<int32_t>& blocks, const std::vector<std::byte*>& to,
                            const Wait& wait, ReadOutcome& out) {
  for (size_t begin = 0; begin < blocks.size();) {
    const auto end = ReceiveBatch(begin, to, out, wait);
    if (!end.ok()) {
      out.status = end.status();
      return;
    }
    begin = *end;
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!out.good[i]) {
      out.status = StaleBlock(blocks[i]);
      return;
    }
  }
}

StatusOr<size_t> Session::ReceiveBatch(size_t begin, const std::vector<std::byte*>& to,
                                       ReadOutcome& out, const Wait& wait) {
  wire::FrameHeader header;
  LLMD_RETURN_IF_ERROR(ReadHeader(&header, wait));
  if (header.type != wire::Type::kData) return ReadReply(header, wire::Type::kData, wait).status();
  const size_t count = header.payload_bytes / block_bytes_;
  if (header.tag != tag_ || count == 0 || header.payload_bytes % block_bytes_ != 0 ||
      count > to.size() - begin) {
    return Protocol("DATA of " + std::to_string(header.payload_bytes) + " bytes at position " +
                    std::to_string(begin));
  }
  std::vector<iovec> parts;
  parts.reserve(count);
  for (size_t i = begin; i < begin + count; ++i) parts.push_back({to[i], block_bytes_});
  LLMD_RETURN_IF_ERROR(ReceiveAll(fd_.get(), parts, wait));
  LLMD_RETURN_IF_ERROR(ReadHeader(&header, wait));
  LLMD_ASSIGN_OR_RETURN(const Reply reply, ReadReply(header, wire::Type::kVerdict, wait));
  LLMD_ASSIGN_OR_RETURN(const std::vector<uint32_t> stale, wire::DecodeVerdict(reply.payload));
  for (size_t i = begin; i < begin + count; ++i) out.good[i] = true;
  size_t good = count;
  for (uint32_t position : stale) {
    if (position < begin || position >= begin + count)
      return Protocol("VERDICT on position " + std::to_string(position));
    if (out.good[position]) --good;
    out.good[position] = false;
  }
  out.blocks_read += good;
  return begin + count;
}

}  // namespace llmd::kv
