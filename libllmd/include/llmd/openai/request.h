// Typed requests of the OpenAI-compatible API with vLLM's extensions: what /v1/completions,
// /v1/chat/completions, /tokenize and /detokenize accept. Parsing coerces as vLLM does (coerce.h),
// checks ranges, ignores unknown fields and refuses by name what this server does not do.
// Vocabulary and length rules are the serving layer's. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "llmd/json.h"
#include "llmd/openai/error.h"

namespace llmd::openai {

// Unset fields take the server's defaults (max_tokens: 16 for completions, the rest of the context
// for chat).
struct CommonRequest {
  std::optional<std::string> model;
  int n = 1;
  std::optional<int> max_tokens;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  double presence_penalty = 0, frequency_penalty = 0;
  std::optional<int64_t> seed;  // -1 reads as unset
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  int min_tokens = 0;
  bool stream = false;
  bool include_usage = false;           // stream_options
  bool continuous_usage_stats = false;  // stream_options
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;
  std::vector<std::string> bad_words;
  bool skip_special_tokens = true;
  std::optional<int> truncate_prompt_tokens;  // -1 = as many as fit
  bool truncate_left = true;                  // which end loses tokens
  std::optional<int> logprobs;                // top-k beside the sampled token; -1 = all
  std::optional<int> prompt_logprobs;         // -1 = all
  int priority = 0;
  std::optional<std::string> request_id;
  std::string cache_salt;
  json::Value kv_transfer_params;  // null or the client's object
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  bool echo = false;
  bool add_special_tokens = true;
};

using TokenIds = std::vector<int32_t>;
using Prompt = std::variant<std::string, TokenIds>;

struct CompletionRequest : CommonRequest {
  std::vector<Prompt> prompts;  // at least one
};

// The part of a chat request that becomes a prompt; /tokenize takes it too.
struct ChatPrompt {
  // Objects with role and content (null, a string or a list of {"type":"text"} parts) and what else
  // templates are given: tool_calls (never empty, arguments an object), tool_call_id, reasoning,
  // name, a developer's tools.
  json::Array messages;
  json::Value tools;      // null or a non-empty array
  json::Value documents;  // null or an array
  json::Value chat_template_kwargs;
  std::optional<std::string> chat_template;
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

struct ChatRequest : CommonRequest {
  ChatPrompt prompt;
  bool return_prompt_text = false;
};

struct TokenizeRequest {
  std::optional<std::string> model;
  std::variant<std::string, ChatPrompt> input;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::optional<std::string> model;
  TokenIds tokens;
};

struct ParseLimits {
  size_t max_prompts = 1024;
  size_t max_stop_strings = 4;
  int max_n = 16384;
  bool trust_request_chat_template = false;
};

// Each fills `out` from a body's text; on error `out` is unspecified.
MaybeError ParseCompletion(std::string_view body, const ParseLimits& limits,
                           CompletionRequest* out);
MaybeError ParseChat(std::string_view body, const ParseLimits& limits, ChatRequest* out);
MaybeError ParseTokenize(std::string_view body, const ParseLimits& limits, TokenizeRequest* out);
MaybeError ParseDetokenize(std::string_view body, DetokenizeRequest* out);

}  // namespace llmd::openai
