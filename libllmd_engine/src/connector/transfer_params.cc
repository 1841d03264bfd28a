#include "llmd/engine/connector/transfer_params.h"

#include <limits>
#include <string_view>

#include "hash128.h"

namespace llmd::engine {
namespace {

constexpr size_t kMaxBlocks = 1 << 20;

Status Wrong(std::string_view member, std::string_view expected, std::string_view got) {
  return InvalidArgument("kv_transfer_params." + std::string(member) + " must be " +
                         std::string(expected) + ", got " + std::string(got));
}

// Null counts as absent: the routing sidecar sends all members of a prefill leg as null.
Status ReadBool(const json::Value& object, std::string_view member, bool& out) {
  const json::Value& v = object[member];
  if (v.is_null()) return OkStatus();
  if (!v.is_bool()) return Wrong(member, "a boolean", v.TypeName());
  out = v.AsBool();
  return OkStatus();
}

Status ReadString(const json::Value& object, std::string_view member, std::string& out) {
  const json::Value& v = object[member];
  if (v.is_null()) return OkStatus();
  if (!v.is_string()) return Wrong(member, "a string", v.TypeName());
  out = v.AsString();
  return OkStatus();
}

template <typename T>
Status ReadInt(const json::Value& object, std::string_view member, int64_t least, int64_t most,
               T& out) {
  const json::Value& v = object[member];
  if (v.is_null()) return OkStatus();
  const std::string range =
      "an integer from " + std::to_string(least) + " to " + std::to_string(most);
  if (!v.is_int()) return Wrong(member, range, v.TypeName());
  const int64_t value = v.AsInt(-1);
  if (value < least || value > most) return Wrong(member, range, v.Dump());
  out = static_cast<T>(value);
  return OkStatus();
}

Status ReadFlatBlocks(const json::Array& ids, std::vector<int32_t>& out) {
  constexpr std::string_view kExpected = "block ids, or one list of them per KV group";
  if (ids.size() > kMaxBlocks)
    return Wrong("remote_block_ids", "at most 1048576 long", std::to_string(ids.size()));
  for (const json::Value& id : ids) {
    if (!id.is_int()) return Wrong("remote_block_ids", kExpected, id.TypeName());
    const int64_t value = id.AsInt(-1);
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      return Wrong("remote_block_ids", kExpected, id.Dump());
    }
    out.push_back(static_cast<int32_t>(value));
  }
  return OkStatus();
}

Status ReadBlocks(const json::Value& object, std::vector<int32_t>& out) {
  const json::Value& v = object["remote_block_ids"];
  if (v.is_null()) return OkStatus();
  if (!v.is_array()) return Wrong("remote_block_ids", "an array", v.TypeName());
  const json::Array& groups = v.AsArray();
  if (groups.empty() || !groups[0].is_array()) return ReadFlatBlocks(groups, out);
  if (groups.size() != 1)
    return Wrong("remote_block_ids", "of one KV group", std::to_string(groups.size()) + " groups");
  return ReadFlatBlocks(groups[0].AsArray(), out);
}

Status CheckComplete(const TransferParams& params) {
  if (!params.do_remote_prefill) return OkStatus();
  if (params.do_remote_decode) {
    return InvalidArgument(
        "kv_transfer_params.do_remote_decode and do_remote_prefill exclude each other");
  }
  const std::string_view missing = params.remote_engine_id.empty()    ? "remote_engine_id"
                                   : params.remote_request_id.empty() ? "remote_request_id"
                                   : params.remote_host.empty()       ? "remote_host"
                                   : params.remote_port == 0          ? "remote_port"
                                                                      : "";
  if (missing.empty()) return OkStatus();
  return InvalidArgument("kv_transfer_params." + std::string(missing) +
                         " is missing, and do_remote_prefill needs it");
}

}  // namespace

std::string PromptHash(std::span<const int32_t> tokens) {
  Hash128 hash;
  hash.Bytes(std::as_bytes(tokens));
  return hash.Hex();
}

StatusOr<TransferParams> ParseTransferParams(const json::Value& value) {
  TransferParams p;
  if (value.is_null()) return p;
  if (!value.is_object()) {
    return InvalidArgument("kv_transfer_params must be an object, got " +
                           std::string(value.TypeName()));
  }
  int tp_size = 1;
  LLMD_RETURN_IF_ERROR(ReadBool(value, "do_remote_prefill", p.do_remote_prefill));
  LLMD_RETURN_IF_ERROR(ReadBool(value, "do_remote_decode", p.do_remote_decode));
  LLMD_RETURN_IF_ERROR(ReadString(value, "remote_engine_id", p.remote_engine_id));
  LLMD_RETURN_IF_ERROR(ReadString(value, "remote_request_id", p.remote_request_id));
  LLMD_RETURN_IF_ERROR(ReadString(value, "remote_host", p.remote_host));
  LLMD_RETURN_IF_ERROR(ReadInt(value, "remote_port", 1, 65535, p.remote_port));
  LLMD_RETURN_IF_ERROR(ReadInt(value, "tp_size", 1, 1, tp_size));
  LLMD_RETURN_IF_ERROR(ReadInt(value, "remote_num_tokens", 0, std::numeric_limits<int32_t>::max(),
                               p.remote_num_tokens));
  LLMD_RETURN_IF_ERROR(ReadString(value, "llmd_prompt_hash", p.prompt_hash));
  LLMD_RETURN_IF_ERROR(ReadString(value, "llmd_fingerprint", p.fingerprint));
  LLMD_RETURN_IF_ERROR(ReadBlocks(value, p.remote_block_ids));
  LLMD_RETURN_IF_ERROR(CheckComplete(p));
  return p;
}

json::Value TransferReply(const TransferParams& params, int cached_tokens) {
  json::Array ids;
  for (const int32_t id : params.remote_block_ids) ids.emplace_back(id);
  json::Array groups;
  groups.emplace_back(std::move(ids));
  json::Object reply;
  reply.emplace_back("do_remote_prefill", true);
  reply.emplace_back("do_remote_decode", false);
  reply.emplace_back("remote_block_ids", std::move(groups));
  reply.emplace_back("remote_engine_id", params.remote_engine_id);
  reply.emplace_back("remote_request_id", params.remote_request_id);
  reply.emplace_back("remote_host", params.remote_host);
  reply.emplace_back("remote_port", static_cast<int>(params.remote_port));
  reply.emplace_back("tp_size", 1);
  reply.emplace_back("pp_size", 1);
  reply.emplace_back("dcp_size", 1);
  reply.emplace_back("remote_num_tokens", params.remote_num_tokens);
  reply.emplace_back("remote_prefill_cached_tokens", cached_tokens);
  reply.emplace_back("remote_blocks_expiry_time", nullptr);
  reply.emplace_back("transfer_mode", "pull");
  reply.emplace_back("llmd_prompt_hash", params.prompt_hash);
  reply.emplace_back("llmd_fingerprint", params.fingerprint);
  return reply;
}

}  // namespace llmd::engine
