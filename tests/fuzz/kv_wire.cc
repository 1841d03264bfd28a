#include <cstring>

#include "fuzz/fuzz.h"
#include "transfer/wire.h"

namespace wire = llmd::kv::wire;

namespace {
// What decodes must encode to a record that decodes to the same bytes again.
template <typename Decode>
void RoundTrip(std::string_view payload, Decode decode) {
  const auto record = decode(payload);
  if (!record.ok()) return;
  const std::string bytes = wire::Encode(*record);
  const auto again = decode(bytes);
  FUZZ_EXPECT(again.ok() && wire::Encode(*again) == bytes);
}
}  // namespace

FUZZ_TARGET(kv_wire) {
  if (input.size() >= wire::kFrameHeaderBytes) {
    wire::HeaderBytes bytes;
    std::memcpy(bytes.data(), input.data(), bytes.size());
    if (const auto header = wire::DecodeHeader(bytes); header.ok()) {
      FUZZ_EXPECT(header->type == wire::Type::kData ||
                  header->payload_bytes <= wire::kMaxPayloadBytes);
      input.remove_prefix(bytes.size());
    }
  }
  RoundTrip(input, wire::DecodeHello);
  RoundTrip(input, wire::DecodeWelcome);
  RoundTrip(input, wire::DecodeRead);
  RoundTrip(input, wire::DecodeGrant);
  RoundTrip(input, wire::DecodeDone);
  (void)wire::DecodeVerdict(input);
  FUZZ_EXPECT(!wire::DecodeError(input).ok());
}
