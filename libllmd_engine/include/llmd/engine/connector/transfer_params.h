// kv_transfer_params: the object by which a prefill engine tells a decode engine where its blocks
// are. Member names are vLLM's NixlConnector's (pd-transfer: what the routing sidecar passes on
// verbatim).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd::engine {

struct TransferParams {
  bool do_remote_prefill = false;  // the KV of the prompt is elsewhere: pull it
  bool do_remote_decode = false;   // keep the KV of the prompt for a reader
  std::string remote_engine_id;
  std::string remote_request_id;
  std::string remote_host;
  uint16_t remote_port = 0;
  std::vector<int32_t> remote_block_ids;  // of KV group 0
  int remote_num_tokens = 0;
  // What the blocks were computed from; "" = the lender does not say.
  std::string prompt_hash;  // PromptHash of the lender's prompt
  std::string fingerprint;  // of the lender's model and KV layout
};

// 32 hex digits that say "the same tokens".
std::string PromptHash(std::span<const int32_t> tokens);

// Reads the client's object; null gives defaults. `remote_block_ids` may be flat or nested per
// group (one group). INVALID_ARGUMENT naming the member that has the wrong type or range, or that
// do_remote_prefill needs and is missing.
StatusOr<TransferParams> ParseTransferParams(const json::Value& value);

// What a prefill leg answers. `cached_tokens` are the prompt tokens it took from its own cache.
json::Value TransferReply(const TransferParams& params, int cached_tokens);

}  // namespace llmd::engine
