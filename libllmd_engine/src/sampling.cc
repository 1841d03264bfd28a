#include "llmd/engine/sampling.h"

#include <cmath>
#include <cstdio>
#include <string>

namespace llmd::engine {
namespace {

std::string Number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

Status Bad(std::string_view field, std::string_view expected, const std::string& got) {
  return InvalidArgument(std::string(field) + " must be " + std::string(expected) + ", got " + got +
                         ".");
}

Status CheckRange(std::string_view field, std::string_view expected, double value, bool good) {
  return good && std::isfinite(value) ? OkStatus() : Bad(field, expected, Number(value));
}

Status CheckToken(std::string_view field, TokenId id, int vocab_size) {
  if (id >= 0 && id < vocab_size) return OkStatus();
  return InvalidArgument("token id " + std::to_string(id) + " in " + std::string(field) +
                         " is outside the vocabulary of " + std::to_string(vocab_size) + ".");
}

Status CheckLengths(const SamplingParams& p) {
  LLMD_RETURN_IF_ERROR(CheckRange("max_tokens", "at least 1", p.max_tokens, p.max_tokens >= 1));
  LLMD_RETURN_IF_ERROR(
      CheckRange("min_tokens", "greater than or equal to 0", p.min_tokens, p.min_tokens >= 0));
  return CheckRange("min_tokens",
                    "less than or equal to max_tokens=" + std::to_string(p.max_tokens),
                    p.min_tokens, p.min_tokens <= p.max_tokens);
}

Status CheckDistribution(const SamplingParams& p) {
  LLMD_RETURN_IF_ERROR(
      CheckRange("temperature", "non-negative", p.temperature, p.temperature >= 0));
  LLMD_RETURN_IF_ERROR(CheckRange("top_p", "in (0, 1]", p.top_p, p.top_p > 0 && p.top_p <= 1));
  LLMD_RETURN_IF_ERROR(CheckRange("top_k", "0 (disable), or at least 1", p.top_k, p.top_k >= -1));
  LLMD_RETURN_IF_ERROR(CheckRange("min_p", "in [0, 1]", p.min_p, p.min_p >= 0 && p.min_p <= 1));
  LLMD_RETURN_IF_ERROR(CheckRange("repetition_penalty", "greater than zero", p.repetition_penalty,
                                  p.repetition_penalty > 0));
  LLMD_RETURN_IF_ERROR(CheckRange("presence_penalty", "in [-2, 2]", p.presence_penalty,
                                  std::fabs(p.presence_penalty) <= 2));
  return CheckRange("frequency_penalty", "in [-2, 2]", p.frequency_penalty,
                    std::fabs(p.frequency_penalty) <= 2);
}

Status CheckIds(const SamplingParams& p, int vocab_size) {
  for (const auto& [id, bias] : p.logit_bias) {
    LLMD_RETURN_IF_ERROR(CheckToken("logit_bias", id, vocab_size));
    LLMD_RETURN_IF_ERROR(CheckRange("logit_bias", "finite", bias, true));
  }
  for (const TokenId id : p.allowed_token_ids)
    LLMD_RETURN_IF_ERROR(CheckToken("allowed_token_ids", id, vocab_size));
  for (const auto& word : p.bad_words) {
    if (word.empty()) return InvalidArgument("bad_words must not contain an empty word.");
    for (const TokenId id : word) LLMD_RETURN_IF_ERROR(CheckToken("bad_words", id, vocab_size));
  }
  return OkStatus();
}

Status CheckLogprobs(std::string_view field, const std::optional<int>& value, int vocab_size) {
  if (!value) return OkStatus();
  return CheckRange(field, "between -1 (all) and the vocabulary's " + std::to_string(vocab_size),
                    *value, *value >= -1 && *value <= vocab_size);
}

}  // namespace

Status Validate(const SamplingParams& params, int vocab_size) {
  LLMD_RETURN_IF_ERROR(CheckLengths(params));
  LLMD_RETURN_IF_ERROR(CheckDistribution(params));
  LLMD_RETURN_IF_ERROR(CheckIds(params, vocab_size));
  LLMD_RETURN_IF_ERROR(CheckLogprobs("logprobs", params.logprobs, vocab_size));
  return CheckLogprobs("prompt_logprobs", params.prompt_logprobs, vocab_size);
}

}  // namespace llmd::engine
