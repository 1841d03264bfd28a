#include "llmd/kv/transfer.h"
#include "transfer/socket.h"
#include "transfer/wire.h"

namespace llmd::kv {
namespace {

Status Expect(int fd, wire::Type expected, const Wait& wait) {
  wire::HeaderBytes bytes;
  LLMD_RETURN_IF_ERROR(ReceiveAll(fd, bytes, wait));
  LLMD_ASSIGN_OR_RETURN(const wire::FrameHeader header, wire::DecodeHeader(bytes));
  if (header.payload_bytes > wire::kMaxPayloadBytes)
    return DataLoss("KV peer broke the protocol: frame too large");
  std::string payload(header.payload_bytes, '\0');
  auto* at = reinterpret_cast<uint8_t*>(payload.data());
  LLMD_RETURN_IF_ERROR(ReceiveAll(fd, std::span<uint8_t>(at, payload.size()), wait));
  if (header.type == wire::Type::kError) return wire::DecodeError(payload);
  return header.type == expected ? OkStatus()
                                 : DataLoss("KV peer broke the protocol: unexpected frame");
}

}  // namespace

Status ReleaseLease(const std::string& engine_id, const std::string& host, uint16_t port,
                    const std::string& request_id, Duration timeout) {
  if (engine_id.size() > wire::kMaxTextBytes || request_id.size() > wire::kMaxTextBytes) {
    return InvalidArgument("lease release: engine id or request id is longer than 4096 bytes");
  }
  const StopEvent never;
  const Wait wait{&never, std::chrono::steady_clock::now() + timeout};
  LLMD_ASSIGN_OR_RETURN(const UniqueFd fd, ConnectTcp(host, port, timeout, wait));
  wire::Hello hello;
  hello.engine_id = engine_id;
  hello.purpose = wire::Purpose::kRelease;
  LLMD_RETURN_IF_ERROR(
      SendAll(fd.get(), wire::Frame(wire::Type::kHello, 1, wire::Encode(hello)), wait));
  LLMD_RETURN_IF_ERROR(Expect(fd.get(), wire::Type::kWelcome, wait));
  LLMD_RETURN_IF_ERROR(SendAll(
      fd.get(), wire::Frame(wire::Type::kDone, 2, wire::Encode(wire::Done{request_id})), wait));
  return Expect(fd.get(), wire::Type::kDoneOk, wait);
}

}  // namespace llmd::kv
