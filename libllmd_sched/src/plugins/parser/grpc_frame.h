// gRPC's framing of messages in a body: a flag byte, four bytes of length (big-endian), the
// message.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "llmd/sched/request_context.h"
#include "llmd/status.h"

namespace llmd::sched {

inline constexpr size_t kGrpcHeaderBytes = 5;

// The one message of a unary request. INVALID_ARGUMENT for compressed or cut ones and for bytes
// after it.
StatusOr<std::string_view> UnaryGrpcMessage(std::string_view body);

// Cuts a stream of messages out of chunks with any borders. Messages above 1 MiB and compressed
// ones are passed over. Thread-compatible.
class GrpcFrames {
 public:
  void Feed(std::string_view chunk, const std::function<void(std::string_view message)>& found);

 private:
  std::string held_;                    // header or message so far
  uint64_t wanted_ = kGrpcHeaderBytes;  // bytes of it
  uint64_t skip_ = 0;                   // bytes of a message that is passed over
  bool in_message_ = false;
};

}  // namespace llmd::sched
