// Replies of the OpenAI-compatible API as vLLM writes them: field order, nulls and all. Builders
// append text straight to a string; no tree is built. Plain values and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "llmd/json.h"
#include "llmd/openai/request.h"

namespace llmd::openai {

// Nothing for end of sequence and length, else the stop string or the stop token's id.
using StopReason = std::variant<std::monostate, std::string, int32_t>;

struct TokenLogprob {
  std::string token;  // as shown to the client
  float logprob = 0;  // -inf is written as -9999.0
  std::string bytes;  // the token's own bytes; chat only
  int32_t id = 0;
  int rank = 0;
};

// One position: the chosen token and the likeliest ones.
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;
  bool predicted = true;  // false: a prompt's first token, which nothing stands before; its
                          // probabilities are null
};

struct Usage {
  int prompt_tokens = 0, completion_tokens = 0;
  std::optional<int> cached_tokens;  // set = prompt_tokens_details is shown
};

// Null pointer / nothing = JSON null.
struct CompletionChoice {
  int index = 0;
  std::string text;
  std::optional<std::vector<PositionLogprobs>> logprobs;
  int text_offset = 0;  // characters before the first of `logprobs`
  std::string finish_reason;
  StopReason stop_reason;
  std::optional<TokenIds> token_ids;
  std::optional<std::vector<PositionLogprobs>> prompt_logprobs;
  std::optional<TokenIds> prompt_token_ids;
};

struct ChatChoice {
  int index = 0;
  std::string role = "assistant";
  std::string content;
  std::optional<std::vector<PositionLogprobs>> logprobs;
  std::string finish_reason;
  StopReason stop_reason;
  std::optional<TokenIds> token_ids;
};

// What every reply to one request shares.
struct ReplyHead {
  std::string id;
  int64_t created = 0;  // Unix seconds
  std::string model;
  std::string system_fingerprint;
};

std::string CompletionBody(const ReplyHead& head, std::span<const CompletionChoice> choices,
                           const Usage& usage, const json::Value& kv_transfer_params);

struct ChatExtras {
  std::optional<std::vector<PositionLogprobs>> prompt_logprobs;
  std::optional<TokenIds> prompt_token_ids;
  std::optional<std::string> prompt_text;
  json::Value kv_transfer_params;
};
std::string ChatBody(const ReplyHead& head, std::span<const ChatChoice> choices, const Usage& usage,
                     const ChatExtras& extras);

struct ModelCard {
  std::string id, root;
  std::optional<std::string> parent;
  int64_t created = 0;
  std::optional<int> max_model_len;
};
std::string ModelListBody(std::span<const ModelCard> cards);

std::string TokenizeBody(std::span<const int32_t> tokens, int max_model_len,
                         const std::optional<std::vector<std::string>>& token_strs);
std::string DetokenizeBody(std::string_view prompt);

// The number of code points of a UTF-8 text.
int CharCount(std::string_view text);

}  // namespace llmd::openai
