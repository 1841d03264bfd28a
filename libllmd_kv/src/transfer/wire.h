// Frames and records of the transfer protocol, bytes only (docs/wire/transfer.md). Everything a
// peer sends is checked for length before it is read. Thread-compatible values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/kv/transfer.h"
#include "llmd/status.h"

namespace llmd::kv::wire {

inline constexpr uint32_t kMagic = 0x54564b4c;  // "LKVT"
inline constexpr uint8_t kVersion = 1;
inline constexpr size_t kFrameHeaderBytes = 16;
inline constexpr size_t kMaxPayloadBytes = 1 << 20;  // of every frame but kData
inline constexpr size_t kMaxBlocksPerRead = 65536;
inline constexpr size_t kMaxTextBytes = 4096;

enum class Type : uint8_t {
  kHello = 1,    // reader → lender, first
  kWelcome = 2,  // its answer; on the Unix socket it carries the region's fd
  kRead = 3,     // asks for blocks of a lease
  kGrant = 4,    // the generations of those blocks
  kData = 5,     // TCP lane: bytes of consecutive positions
  kVerdict = 6,  // TCP lane: which positions of the kData before it were stale
  kDone = 7,     // the reader needs the lease no longer
  kDoneOk = 8,
  kError = 9,
};

struct FrameHeader {
  Type type = Type::kError;
  uint32_t payload_bytes = 0;
  uint32_t tag = 0;  // chosen by the reader, echoed by the lender
};

using HeaderBytes = std::array<uint8_t, kFrameHeaderBytes>;
HeaderBytes EncodeHeader(const FrameHeader& header);
// DATA_LOSS: not this protocol, or a length over the limit; UNIMPLEMENTED naming the version when
// it is another one.
StatusOr<FrameHeader> DecodeHeader(std::span<const uint8_t, kFrameHeaderBytes> bytes);

// A frame with its payload, ready to be sent.
std::string Frame(Type type, uint32_t tag, std::string_view payload);

// Why a peer has come. A releaser has no pool: it sends no compatibility record and may ask for
// nothing but kDone.
enum class Purpose : uint8_t { kRead = 0, kRelease = 1 };
struct Hello {
  std::string engine_id;  // of the lender that the reader looks for
  std::string reader_id;
  Compatibility compatibility;
  Purpose purpose = Purpose::kRead;
};
struct Welcome {
  std::string engine_id;
  uint64_t epoch = 0, block_bytes = 0, num_blocks = 0;
  Compatibility compatibility;
};
enum class Lane : uint8_t { kMemfd = 1, kTcp = 2 };
struct Read {
  std::string request_id;
  Lane lane = Lane::kTcp;
  std::vector<int32_t> blocks;
};
struct Grant {
  uint64_t epoch = 0;
  std::vector<uint64_t> generations;
};
struct Done {
  std::string request_id;
};

std::string Encode(const Hello& record);
std::string Encode(const Welcome& record);
std::string Encode(const Read& record);
std::string Encode(const Grant& record);
std::string Encode(const Done& record);
std::string EncodeVerdict(const std::vector<uint32_t>& stale_positions);
std::string EncodeError(const Status& status);

// DATA_LOSS naming the field that is missing, doubled, too long or of the wrong size. Unknown
// fields are skipped.
StatusOr<Hello> DecodeHello(std::string_view payload);
StatusOr<Welcome> DecodeWelcome(std::string_view payload);
StatusOr<Read> DecodeRead(std::string_view payload);
StatusOr<Grant> DecodeGrant(std::string_view payload);
StatusOr<Done> DecodeDone(std::string_view payload);
StatusOr<std::vector<uint32_t>> DecodeVerdict(std::string_view payload);
// The peer's status; DATA_LOSS when the record itself is bad. Never ok.
Status DecodeError(std::string_view payload);

// Ok, or FAILED_PRECONDITION naming the first field that differs with both values.
Status CheckCompatible(const Compatibility& lender, const Compatibility& reader);

}  // namespace llmd::kv::wire
