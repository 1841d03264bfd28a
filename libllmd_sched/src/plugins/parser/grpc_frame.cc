#include "plugins/parser/grpc_frame.h"

#include <algorithm>

namespace llmd::sched {
namespace {

constexpr uint64_t kMaxMessageBytes = 1 << 20;

uint64_t LengthIn(std::string_view header) {
  uint64_t length = 0;
  for (size_t i = 1; i < kGrpcHeaderBytes; ++i)
    length = length << 8 | static_cast<unsigned char>(header[i]);
  return length;
}

}  // namespace

StatusOr<std::string_view> UnaryGrpcMessage(std::string_view body) {
  if (body.size() < kGrpcHeaderBytes)
    return InvalidArgument("gRPC body: expected at least 5 bytes, got " +
                           std::to_string(body.size()));
  if (body[0] != 0) return InvalidArgument("gRPC body: compressed messages are not supported");
  const std::string_view message = body.substr(kGrpcHeaderBytes);
  if (LengthIn(body) != message.size()) {
    return InvalidArgument("gRPC body: expected one message of " + std::to_string(LengthIn(body)) +
                           " bytes, got " + std::to_string(message.size()));
  }
  return message;
}

void GrpcFrames::Feed(std::string_view chunk, const std::function<void(std::string_view)>& found) {
  while (!chunk.empty()) {
    if (skip_ > 0) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(skip_, chunk.size()));
      chunk.remove_prefix(n);
      skip_ -= n;
      continue;
    }
    const size_t n = std::min<size_t>(static_cast<size_t>(wanted_) - held_.size(), chunk.size());
    held_.append(chunk.substr(0, n));
    chunk.remove_prefix(n);
    if (held_.size() < wanted_) return;
    if (in_message_) {
      found(held_);
      wanted_ = kGrpcHeaderBytes;
      in_message_ = false;
    } else if (const uint64_t length = LengthIn(held_);
               held_[0] != 0 || length > kMaxMessageBytes || length == 0) {
      skip_ = length;
    } else {
      wanted_ = length;
      in_message_ = true;
    }
    held_.clear();
  }
}

}  // namespace llmd::sched
