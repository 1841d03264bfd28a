#include "transfer/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace llmd::kv {
namespace {

constexpr size_t kReadChunkBytes = 64 * 1024;
constexpr size_t kBatchBytes = 1 << 20;
constexpr size_t kBatchBlocks = 64;
constexpr size_t kTurnBytes =
    4 << 20;  // what one connection may send before the others get their turn

const std::byte* BlockAt(const Region& region, int32_t block) {
  return const_cast<Region&>(region).blocks() + static_cast<size_t>(block) * region.block_stride();
}

}  // namespace

Connection::Connection(UniqueFd fd, bool local, const Region& region, const AgentOptions& options,
                       LeaseTable& leases)
    : fd_(std::move(fd)), local_(local), region_(region), options_(options), leases_(leases) {}

bool Connection::End(Status why) {
  why_ = std::move(why);
  return false;
}

std::optional<Connection::SteadyTime> Connection::waiting_since() const {
  if (!greeted_) return born_;
  if (wants_write()) return progress_;
  return std::nullopt;
}

bool Connection::OnReadable() {
  char chunk[kReadChunkBytes];
  const ssize_t got = recv(fd_.get(), chunk, sizeof(chunk), 0);
  if (got == 0) return End(Unavailable("closed by the reader"));
  if (got < 0) return errno == EAGAIN || errno == EINTR || End(ErrnoStatus(errno, "recv"));
  in_.append(chunk, static_cast<size_t>(got));
  return TakeFrames() && OnWritable();
}

bool Connection::TakeFrames() {
  // One question at a time: what a reader sends ahead waits until its stream is out.
  size_t taken = 0;
  while (!stream_ && !closing_ && in_.size() - taken >= wire::kFrameHeaderBytes) {
    const auto* head = reinterpret_cast<const uint8_t*>(in_.data() + taken);
    const auto frame = wire::DecodeHeader(
        std::span<const uint8_t, wire::kFrameHeaderBytes>(head, wire::kFrameHeaderBytes));
    const bool foreign = frame.ok() && frame->type == wire::Type::kData;
    if (!frame.ok() || foreign) {
      ReplyError(0, frame.ok() ? DataLoss("a reader may not send data") : frame.status());
      closing_ = true;
      break;
    }
    if (in_.size() - taken - wire::kFrameHeaderBytes < frame->payload_bytes) break;
    const std::string_view payload(in_.data() + taken + wire::kFrameHeaderBytes,
                                   frame->payload_bytes);
    if (const Status status = Handle(*frame, payload); !status.ok()) {
      ReplyError(frame->tag, status);
      // A reader that does not speak the protocol, or is not one of ours, gets its answer and no
      // second try.
      closing_ = status.code() == StatusCode::kDataLoss || !greeted_;
    }
    taken += wire::kFrameHeaderBytes + frame->payload_bytes;
  }
  in_.erase(0, taken);
  return true;
}

Status Connection::Handle(const wire::FrameHeader& frame, std::string_view payload) {
  if (frame.type == wire::Type::kHello) return HandleHello(frame.tag, payload);
  if (!greeted_) return FailedPrecondition("HELLO must come first");
  if (frame.type == wire::Type::kRead) return HandleRead(frame.tag, payload);
  if (frame.type == wire::Type::kDone) return HandleDone(frame.tag, payload);
  return DataLoss("frame type " + std::to_string(static_cast<int>(frame.type)) +
                  " is not for a lender");
}

Status Connection::HandleHello(uint32_t tag, std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const wire::Hello hello, wire::DecodeHello(payload));
  if (hello.engine_id != options_.engine_id) {
    return FailedPrecondition("engine id: reader asks for '" + hello.engine_id + "', this is '" +
                              options_.engine_id + "'");
  }
  reads_ = hello.purpose == wire::Purpose::kRead;
  if (reads_)
    LLMD_RETURN_IF_ERROR(wire::CheckCompatible(options_.compatibility, hello.compatibility));
  const wire::Welcome welcome{options_.engine_id, region_.epoch(), region_.block_bytes(),
                              static_cast<uint64_t>(region_.num_blocks()), options_.compatibility};
  Reply(wire::Type::kWelcome, tag, wire::Encode(welcome));
  pass_fd_ = local_ && reads_ && !greeted_;
  greeted_ = true;
  return OkStatus();
}

Status Connection::HandleRead(uint32_t tag, std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(wire::Read read, wire::DecodeRead(payload));
  if (!reads_) return FailedPrecondition("a releaser may not read");
  if (read.lane == wire::Lane::kMemfd && !local_)
    return FailedPrecondition("the memfd lane needs the Unix socket");
  LLMD_ASSIGN_OR_RETURN(const auto lease, leases_.Find(read.request_id));
  wire::Grant grant;
  grant.epoch = region_.epoch();
  grant.generations.reserve(read.blocks.size());
  for (int32_t block : read.blocks) {
    LLMD_ASSIGN_OR_RETURN(const uint64_t generation, lease->GenerationOf(block));
    grant.generations.push_back(generation);
  }
  Reply(wire::Type::kGrant, tag, wire::Encode(grant));
  if (read.lane == wire::Lane::kMemfd || read.blocks.empty()) return OkStatus();
  stream_.emplace();
  stream_->tag = tag;
  stream_->request_id = read.request_id;
  stream_->generations = std::move(grant.generations);
  stream_->read = std::move(read);
  progress_ = std::chrono::steady_clock::now();
  return OkStatus();
}

Status Connection::HandleDone(uint32_t tag, std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const wire::Done done, wire::DecodeDone(payload));
  LLMD_RETURN_IF_ERROR(leases_.Finish(done.request_id, reads_));
  Reply(wire::Type::kDoneOk, tag, {});
  return OkStatus();
}

bool Connection::OnWritable() {
  bool blocked = false;
  for (size_t turn = 0; !blocked && turn < kTurnBytes / kBatchBytes;) {
    if (!out_.empty()) {
      if (!SendOut(&blocked)) return false;
    } else if (closing_) {
      return End(FailedPrecondition("refused"));
    } else if (!stream_) {
      if (in_.size() < wire::kFrameHeaderBytes) return true;
      const size_t before = in_.size();
      TakeFrames();
      if (in_.size() == before && out_.empty()) return true;
    } else if (stream_->next_part < stream_->parts.size()) {
      if (!SendParts(&blocked)) return false;
    } else if (stream_->end > stream_->begin) {
      FinishBatch();
      ++turn;
    } else {
      StartBatch();
    }
  }
  return true;
}

bool Connection::SendOut(bool* blocked) {
  const ssize_t sent = pass_fd_ ? SendWithFd(fd_.get(), out_, region_.fd())
                                : send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
  if (sent < 0) {
    *blocked = errno == EAGAIN || errno == EINTR;
    return *blocked || End(ErrnoStatus(errno, "send"));
  }
  pass_fd_ = false;
  out_.erase(0, static_cast<size_t>(sent));
  progress_ = std::chrono::steady_clock::now();
  return true;
}

bool Connection::Stale(size_t position) const {
  return region_.Generation(stream_->read.blocks[position]) != stream_->generations[position];
}

void Connection::StartBatch() {
  BlockStream& s = *stream_;
  if (const auto lease = leases_.Find(s.request_id); !lease.ok()) {
    ReplyError(s.tag, lease.status());
    stream_.reset();
    return;
  }
  const size_t fit = std::clamp<size_t>(kBatchBytes / region_.block_bytes(), 1, kBatchBlocks);
  s.end = std::min(s.begin + fit, s.read.blocks.size());
  const size_t bytes = (s.end - s.begin) * region_.block_bytes();
  const wire::HeaderBytes header =
      wire::EncodeHeader({wire::Type::kData, static_cast<uint32_t>(bytes), s.tag});
  out_.append(reinterpret_cast<const char*>(header.data()), header.size());
  s.parts.clear();
  s.next_part = 0;
  s.stale.clear();
  for (size_t position = s.begin; position < s.end; ++position) {
    const std::byte* from = BlockAt(region_, s.read.blocks[position]);
    if (Stale(position)) {
      s.stale.push_back(static_cast<uint32_t>(position));
      zeros_.resize(region_.block_bytes());
      from = zeros_.data();
    }
    s.parts.push_back({const_cast<std::byte*>(from), region_.block_bytes()});
  }
}

bool Connection::SendParts(bool* blocked) {
  BlockStream& s = *stream_;
  msghdr message{};
  message.msg_iov = s.parts.data() + s.next_part;
  message.msg_iovlen = s.parts.size() - s.next_part;
  ssize_t sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  if (sent < 0) {
    *blocked = errno == EAGAIN || errno == EINTR;
    return *blocked || End(ErrnoStatus(errno, "send"));
  }
  progress_ = std::chrono::steady_clock::now();
  for (auto left = static_cast<size_t>(sent); left > 0;) {
    iovec& part = s.parts[s.next_part];
    const size_t step = std::min(left, part.iov_len);
    part.iov_base = static_cast<char*>(part.iov_base) + step;
    part.iov_len -= step;
    left -= step;
    if (part.iov_len == 0) ++s.next_part;
  }
  return true;
}

// The kernel has its copy of every byte now: a generation that still stands proves that the copy is
// good.
void Connection::FinishBatch() {
  BlockStream& s = *stream_;
  for (size_t position = s.begin; position < s.end; ++position) {
    if (options_.before_recheck) options_.before_recheck(position);
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  std::vector<uint32_t> stale;
  for (size_t position = s.begin; position < s.end; ++position) {
    const bool before =
        std::binary_search(s.stale.begin(), s.stale.end(), static_cast<uint32_t>(position));
    if (before || Stale(position)) stale.push_back(static_cast<uint32_t>(position));
  }
  Reply(wire::Type::kVerdict, s.tag, wire::EncodeVerdict(stale));
  s.begin = s.end;
  if (s.begin == s.read.blocks.size()) stream_.reset();
}

}  // namespace llmd::kv
