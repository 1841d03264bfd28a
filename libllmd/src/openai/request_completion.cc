#include <limits>

#include "request_common.h"

namespace llmd::openai {
namespace {

constexpr int kDefaultMaxTokens = 16;

bool IsTokenArray(const json::Value& value) {
  return value.is_array() && !value.AsArray().empty() && value.AsArray().front().is_number();
}

MaybeError ReadIds(const json::Value& value, Prompt* out) {
  TokenIds ids;
  ids.reserve(value.AsArray().size());
  for (const json::Value& item : value.AsArray()) {
    const auto id = item.is_number() ? CoerceInt(item) : std::nullopt;
    if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
      return BadRequest("prompt token ids must be integers of at least 0, got " + item.Dump() + ".",
                        "prompt");
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  if (ids.empty()) return BadRequest("prompt cannot be empty.", "prompt");
  *out = std::move(ids);
  return std::nullopt;
}

MaybeError ReadOnePrompt(const json::Value& value, Prompt* out) {
  if (value.is_string()) {
    if (value.AsString().empty()) return BadRequest("prompt cannot be empty.", "prompt");
    *out = value.AsString();
    return std::nullopt;
  }
  if (value.is_array()) return ReadIds(value, out);
  return BadRequest(
      "prompt must be a string, a list of strings, a list of token ids or a list of "
      "lists of token ids.",
      "prompt");
}

MaybeError ReadPrompts(const FieldReader& reader, const ParseLimits& limits,
                       std::vector<Prompt>* out) {
  const json::Value* prompt = reader.Present("prompt");
  if (prompt == nullptr) {
    return BadRequest("Either prompt or prompt_embeds must be provided and non-empty.", "prompt");
  }
  if (!prompt->is_array() || IsTokenArray(*prompt)) {
    out->resize(1);
    return ReadOnePrompt(*prompt, &out->front());
  }
  const json::Array& list = prompt->AsArray();
  if (list.empty()) {
    return BadRequest("Either prompt or prompt_embeds must be provided and non-empty.", "prompt");
  }
  if (list.size() > limits.max_prompts) {
    return BadRequest("prompt may list at most " + std::to_string(limits.max_prompts) +
                          " prompts, got " + std::to_string(list.size()) + ".",
                      "prompt");
  }
  out->resize(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    if (auto e = ReadOnePrompt(list[i], &(*out)[i])) return e;
  }
  return std::nullopt;
}

MaybeError CheckMaxTokens(const CompletionRequest& r) {
  const int least = r.echo ? 0 : 1;
  if (*r.max_tokens >= least) return std::nullopt;
  const std::string shown = std::to_string(*r.max_tokens);
  return BadRequest("max_tokens must be at least 1, got " + shown + ".", "max_tokens", shown);
}

}  // namespace

MaybeError ParseCompletion(std::string_view body, const ParseLimits& limits,
                           CompletionRequest* out) {
  json::Value object;
  if (auto e = ParseBody(body, &object)) return e;
  FieldReader reader(object, "body");
  if (auto e = ReadCommon(reader, limits, out)) return e;
  reader.Read("max_tokens", &out->max_tokens);
  if (!out->max_tokens) out->max_tokens = kDefaultMaxTokens;
  if (auto e = ReadStrictInt(reader, "logprobs", &out->logprobs)) return e;
  if (auto e = reader.Error()) return e;
  if (reader.Present("suffix") != nullptr) {
    return BadRequest("suffix is not supported.", "suffix");
  }
  if (auto e = ReadPrompts(reader, limits, &out->prompts)) return e;
  if (auto e = CheckMaxTokens(*out)) return e;
  if (out->logprobs && *out->logprobs < -1) {
    return BadRequest("`logprobs` must be a positive value or -1.", "logprobs",
                      std::to_string(*out->logprobs));
  }
  return CheckCommon(*out, limits);
}

}  // namespace llmd::openai
