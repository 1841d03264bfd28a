#include "transfer/wire.h"

#include "transfer/records.h"

namespace llmd::kv::wire {
namespace {

enum Field : uint16_t {
  kEngineId = 1,
  kReaderId = 2,
  kEpoch = 3,
  kBlockBytes = 4,
  kNumBlocks = 5,
  kPurpose = 6,
  kModel = 16,
  kKvDtype = 17,
  kLayout = 18,
  kLayers = 19,
  kKvHeads = 20,
  kHeadDim = 21,
  kBlockSize = 22,
  kHashAlgorithm = 23,
  kRequestId = 32,
  kLane = 33,
  kBlocks = 34,
  kGenerations = 35,
  kStale = 36,
  kCode = 48,
  kMessage = 49,
};

void PutCompatibility(RecordWriter& out, const Compatibility& c) {
  out.Text(kModel, c.model);
  out.Text(kKvDtype, c.kv_dtype);
  out.Text(kLayout, c.layout);
  out.Number(kLayers, c.layers);
  out.Number(kKvHeads, c.kv_heads);
  out.Number(kHeadDim, c.head_dim);
  out.Number(kBlockSize, c.block_size);
  out.Text(kHashAlgorithm, c.hash_algorithm);
}

Status GetCompatibility(const RecordReader& in, Compatibility* c) {
  LLMD_RETURN_IF_ERROR(in.Text(kModel, "model", &c->model));
  LLMD_RETURN_IF_ERROR(in.Text(kKvDtype, "kv_dtype", &c->kv_dtype));
  LLMD_RETURN_IF_ERROR(in.Text(kLayout, "layout", &c->layout));
  LLMD_RETURN_IF_ERROR(in.Number(kLayers, "layers", &c->layers));
  LLMD_RETURN_IF_ERROR(in.Number(kKvHeads, "kv_heads", &c->kv_heads));
  LLMD_RETURN_IF_ERROR(in.Number(kHeadDim, "head_dim", &c->head_dim));
  LLMD_RETURN_IF_ERROR(in.Number(kBlockSize, "block_size", &c->block_size));
  return in.Text(kHashAlgorithm, "hash_algorithm", &c->hash_algorithm);
}

Status Differs(std::string_view field, const std::string& lender, const std::string& reader) {
  return FailedPrecondition("incompatible " + std::string(field) + ": lender has '" + lender +
                            "', reader has '" + reader + "'");
}

bool KnownType(uint8_t type) {
  return type >= static_cast<uint8_t>(Type::kHello) && type <= static_cast<uint8_t>(Type::kError);
}

}  // namespace

HeaderBytes EncodeHeader(const FrameHeader& header) {
  std::string bytes;
  PutLe(bytes, kMagic);
  PutLe(bytes, kVersion);
  PutLe(bytes, static_cast<uint8_t>(header.type));
  PutLe(bytes, uint16_t{0});
  PutLe(bytes, header.payload_bytes);
  PutLe(bytes, header.tag);
  HeaderBytes out;
  std::memcpy(out.data(), bytes.data(), out.size());
  return out;
}

StatusOr<FrameHeader> DecodeHeader(std::span<const uint8_t, kFrameHeaderBytes> bytes) {
  if (GetLe<uint32_t>(bytes.data()) != kMagic)
    return DataLoss("not the KV transfer protocol (wrong magic)");
  if (bytes[4] != kVersion) {
    return Unimplemented("KV transfer protocol version " + std::to_string(bytes[4]) +
                         ", this side speaks " + std::to_string(kVersion));
  }
  if (!KnownType(bytes[5])) return DataLoss("unknown frame type " + std::to_string(bytes[5]));
  const FrameHeader header{static_cast<Type>(bytes[5]), GetLe<uint32_t>(bytes.data() + 8),
                           GetLe<uint32_t>(bytes.data() + 12)};
  if (header.type != Type::kData && header.payload_bytes > kMaxPayloadBytes) {
    return DataLoss("frame of " + std::to_string(header.payload_bytes) + " bytes, at most " +
                    std::to_string(kMaxPayloadBytes) + " are allowed");
  }
  return header;
}

std::string Frame(Type type, uint32_t tag, std::string_view payload) {
  LLMD_CHECK(payload.size() <= kMaxPayloadBytes);
  const HeaderBytes header = EncodeHeader({type, static_cast<uint32_t>(payload.size()), tag});
  std::string out(reinterpret_cast<const char*>(header.data()), header.size());
  out += payload;
  return out;
}

std::string Encode(const Hello& record) {
  RecordWriter out;
  out.Text(kEngineId, record.engine_id);
  out.Text(kReaderId, record.reader_id);
  out.Number(kPurpose, static_cast<uint8_t>(record.purpose));
  if (record.purpose == Purpose::kRead) PutCompatibility(out, record.compatibility);
  return out.Take();
}

std::string Encode(const Welcome& record) {
  RecordWriter out;
  out.Text(kEngineId, record.engine_id);
  out.Number(kEpoch, record.epoch);
  out.Number(kBlockBytes, record.block_bytes);
  out.Number(kNumBlocks, record.num_blocks);
  PutCompatibility(out, record.compatibility);
  return out.Take();
}

std::string Encode(const Read& record) {
  RecordWriter out;
  out.Text(kRequestId, record.request_id);
  out.Number(kLane, static_cast<uint8_t>(record.lane));
  out.Numbers(kBlocks, record.blocks);
  return out.Take();
}

std::string Encode(const Grant& record) {
  RecordWriter out;
  out.Number(kEpoch, record.epoch);
  out.Numbers(kGenerations, record.generations);
  return out.Take();
}

std::string Encode(const Done& record) {
  RecordWriter out;
  out.Text(kRequestId, record.request_id);
  return out.Take();
}

std::string EncodeVerdict(const std::vector<uint32_t>& stale_positions) {
  RecordWriter out;
  out.Numbers(kStale, stale_positions);
  return out.Take();
}

std::string EncodeError(const Status& status) {
  RecordWriter out;
  out.Number(kCode, static_cast<uint32_t>(status.code()));
  out.Text(kMessage, std::string_view(status.message()).substr(0, kMaxTextBytes));
  return out.Take();
}

StatusOr<Hello> DecodeHello(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("HELLO", payload));
  Hello record;
  LLMD_RETURN_IF_ERROR(in.Text(kEngineId, "engine_id", &record.engine_id));
  LLMD_RETURN_IF_ERROR(in.Text(kReaderId, "reader_id", &record.reader_id));
  uint8_t purpose = 0;
  LLMD_RETURN_IF_ERROR(in.Number(kPurpose, "purpose", &purpose));
  if (purpose > static_cast<uint8_t>(Purpose::kRelease))
    return DataLoss("HELLO: field purpose is " + std::to_string(purpose));
  record.purpose = static_cast<Purpose>(purpose);
  if (record.purpose == Purpose::kRead)
    LLMD_RETURN_IF_ERROR(GetCompatibility(in, &record.compatibility));
  return record;
}

StatusOr<Welcome> DecodeWelcome(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("WELCOME", payload));
  Welcome record;
  LLMD_RETURN_IF_ERROR(in.Text(kEngineId, "engine_id", &record.engine_id));
  LLMD_RETURN_IF_ERROR(in.Number(kEpoch, "epoch", &record.epoch));
  LLMD_RETURN_IF_ERROR(in.Number(kBlockBytes, "block_bytes", &record.block_bytes));
  LLMD_RETURN_IF_ERROR(in.Number(kNumBlocks, "num_blocks", &record.num_blocks));
  LLMD_RETURN_IF_ERROR(GetCompatibility(in, &record.compatibility));
  return record;
}

StatusOr<Read> DecodeRead(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("READ", payload));
  Read record;
  uint8_t lane = 0;
  LLMD_RETURN_IF_ERROR(in.Text(kRequestId, "request_id", &record.request_id));
  LLMD_RETURN_IF_ERROR(in.Number(kLane, "lane", &lane));
  if (lane != static_cast<uint8_t>(Lane::kMemfd) && lane != static_cast<uint8_t>(Lane::kTcp)) {
    return DataLoss("READ: field lane is " + std::to_string(lane));
  }
  record.lane = static_cast<Lane>(lane);
  LLMD_RETURN_IF_ERROR(in.Numbers(kBlocks, "blocks", kMaxBlocksPerRead, &record.blocks));
  return record;
}

StatusOr<Grant> DecodeGrant(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("GRANT", payload));
  Grant record;
  LLMD_RETURN_IF_ERROR(in.Number(kEpoch, "epoch", &record.epoch));
  LLMD_RETURN_IF_ERROR(
      in.Numbers(kGenerations, "generations", kMaxBlocksPerRead, &record.generations));
  return record;
}

StatusOr<Done> DecodeDone(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("DONE", payload));
  Done record;
  LLMD_RETURN_IF_ERROR(in.Text(kRequestId, "request_id", &record.request_id));
  return record;
}

StatusOr<std::vector<uint32_t>> DecodeVerdict(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("VERDICT", payload));
  std::vector<uint32_t> stale;
  LLMD_RETURN_IF_ERROR(in.Numbers(kStale, "stale", kMaxBlocksPerRead, &stale));
  return stale;
}

Status DecodeError(std::string_view payload) {
  LLMD_ASSIGN_OR_RETURN(const RecordReader in, RecordReader::Parse("ERROR", payload));
  uint32_t code = 0;
  std::string message;
  LLMD_RETURN_IF_ERROR(in.Number(kCode, "code", &code));
  LLMD_RETURN_IF_ERROR(in.Text(kMessage, "message", &message));
  if (code == 0 || code > static_cast<uint32_t>(StatusCode::kUnauthenticated)) {
    return DataLoss("ERROR: field code is " + std::to_string(code));
  }
  return {static_cast<StatusCode>(code), std::move(message)};
}

Status CheckCompatible(const Compatibility& lender, const Compatibility& reader) {
  if (lender.model != reader.model) return Differs("model", lender.model, reader.model);
  if (lender.kv_dtype != reader.kv_dtype)
    return Differs("kv_dtype", lender.kv_dtype, reader.kv_dtype);
  if (lender.layout != reader.layout) return Differs("layout", lender.layout, reader.layout);
  const struct {
    const char* name;
    int32_t lender, reader;
  } numbers[] = {{"layers", lender.layers, reader.layers},
                 {"kv_heads", lender.kv_heads, reader.kv_heads},
                 {"head_dim", lender.head_dim, reader.head_dim},
                 {"block_size", lender.block_size, reader.block_size}};
  for (const auto& n : numbers) {
    if (n.lender != n.reader)
      return Differs(n.name, std::to_string(n.lender), std::to_string(n.reader));
  }
  if (lender.hash_algorithm != reader.hash_algorithm) {
    return Differs("hash_algorithm", lender.hash_algorithm, reader.hash_algorithm);
  }
  return OkStatus();
}

}  // namespace llmd::kv::wire
