#include "llmd/engine/serving/prompt.h"

#include <algorithm>

namespace llmd::engine::serving {
namespace {

using openai::BadRequest;
using openai::MaybeError;

constexpr std::string_view kBlanks = " \t\r\n\f\v";

std::string_view TrimLeft(std::string_view s) {
  const size_t begin = s.find_first_not_of(kBlanks);
  return begin == std::string_view::npos ? std::string_view() : s.substr(begin);
}

MaybeError TooLong(int limit, int output, int64_t prompt) {
  return BadRequest("This model's maximum context length is " + std::to_string(limit) +
                        " tokens. However, you requested " + std::to_string(output) +
                        " output tokens and your prompt contains " + std::to_string(prompt) +
                        " input tokens, for a total of " + std::to_string(output + prompt) +
                        " tokens. Please reduce the length of the input prompt or the number of "
                        "requested output tokens.",
                    "input_tokens", std::to_string(prompt));
}

MaybeError CheckTopK(const ServingContext& context, std::optional<int> k, std::string_view field) {
  const int most = context.options.max_logprobs;
  if (!k || most < 0 || (*k >= 0 && *k <= most)) return std::nullopt;
  return BadRequest("Requested " + std::string(field) + " of " + std::to_string(*k) +
                        ", which is greater than max allowed: " + std::to_string(most) + ".",
                    field, std::to_string(*k));
}

MaybeError CheckId(const ServingContext& context, int64_t id, std::string_view field) {
  if (id >= 0 && id < context.options.vocab_size) return std::nullopt;
  return BadRequest(std::string(field) + " contains out-of-vocab token id " + std::to_string(id) +
                        ". Vocabulary size: " + std::to_string(context.options.vocab_size) + ".",
                    field, std::to_string(id));
}

// Each word as it is spelled at the beginning of a text and after a blank, which other tokens may
// spell.
void AddBadWord(const text::Tokenizer& tokenizer, const std::string& word, SamplingParams* out) {
  for (const std::string& spelled : {word, " " + std::string(TrimLeft(word))}) {
    std::vector<TokenId> ids = tokenizer.Encode(spelled, /*add_special=*/false);
    if (ids.empty()) continue;
    if (std::find(out->bad_words.begin(), out->bad_words.end(), ids) == out->bad_words.end()) {
      out->bad_words.push_back(std::move(ids));
    }
  }
}

MaybeError AddVocabularyRules(const ServingContext& context, const openai::CommonRequest& request,
                              SamplingParams* out) {
  for (const auto& [id, bias] : request.logit_bias) {
    if (auto e = CheckId(context, id, "logit_bias")) return e;
  }
  for (const int32_t id : request.allowed_token_ids) {
    if (auto e = CheckId(context, id, "allowed_token_ids")) return e;
  }
  constexpr size_t kMaxBadWords = 128;
  for (const std::string& word : request.bad_words) AddBadWord(context.tokenizer, word, out);
  if (out->bad_words.size() > kMaxBadWords) {
    return BadRequest("bad_words may have at most 128 entries after tokenization.", "bad_words");
  }
  out->logit_bias = request.logit_bias;
  out->allowed_token_ids = request.allowed_token_ids;
  out->stop_token_ids = request.stop_token_ids;
  return std::nullopt;
}

}  // namespace

MaybeError TokenizePrompt(const ServingContext& context, const openai::CommonRequest& request,
                          std::string_view text, PreparedPrompt* out) {
  const int limit = context.options.max_model_len;
  const size_t longest = context.tokenizer.longest_token_bytes();
  if (!request.truncate_prompt_tokens && text.size() > size_t(limit) * longest) {
    return BadRequest("This model's maximum context length is " + std::to_string(limit) +
                          " tokens, and the prompt of " + std::to_string(text.size()) +
                          " bytes cannot fit. Please reduce the length of the input.",
                      "input_text", std::to_string(text.size()));
  }
  context.tokenizer.Encode(text, request.add_special_tokens, /*parse_special=*/true, out->ids);
  out->text = text;
  return std::nullopt;
}

MaybeError TakeIds(const ServingContext& context, openai::TokenIds ids, bool want_text,
                   PreparedPrompt* out) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= context.options.vocab_size) {
      return BadRequest("Token id " + std::to_string(id) + " is out of vocabulary", "prompt");
    }
  }
  if (want_text) {
    auto text = context.tokenizer.Decode(ids, /*skip_special=*/false);
    if (!text.ok()) return openai::FromStatus(text.status());
    out->text = std::move(*text);
  }
  out->ids = std::move(ids);
  return std::nullopt;
}

MaybeError FitPrompt(const ServingContext& context, const openai::CommonRequest& request,
                     PreparedPrompt* prompt) {
  const int limit = context.options.max_model_len;
  const int wanted = request.max_tokens.value_or(0);
  if (wanted > limit) {
    return BadRequest("max_tokens=" + std::to_string(wanted) +
                          " cannot be greater than max_model_len=" + std::to_string(limit) +
                          ". Please request fewer output tokens.",
                      "max_tokens", std::to_string(wanted));
  }
  if (request.truncate_prompt_tokens) {
    int keep = *request.truncate_prompt_tokens;
    if (keep < 0) keep = std::max(1, limit - std::max(1, wanted));
    if (keep > limit - wanted) {
      return BadRequest("truncate_prompt_tokens=" + std::to_string(keep) +
                            " cannot be greater than max_model_len - max_tokens = " +
                            std::to_string(limit - wanted) +
                            ". Please request a smaller truncation size.",
                        "truncate_prompt_tokens", std::to_string(keep));
    }
    if (static_cast<int>(prompt->ids.size()) > keep) {
      if (request.truncate_left) prompt->ids.erase(prompt->ids.begin(), prompt->ids.end() - keep);
      prompt->ids.resize(keep);
    }
  }
  const auto length = static_cast<int64_t>(prompt->ids.size());
  if (length == 0) return BadRequest("The prompt has no tokens.", "prompt");
  // An echo without output still runs one token, which is dropped.
  const int output = std::max(1, wanted);
  if (length + output > limit) return TooLong(limit, output, length);
  prompt->max_tokens = request.max_tokens ? output : limit - static_cast<int>(length);
  return std::nullopt;
}

MaybeError MakeSampling(const ServingContext& context, const openai::CommonRequest& request,
                        SamplingParams* out) {
  constexpr double kGreedyBelow = 1e-5, kLeastTemperature = 0.01;
  const double temperature = request.temperature.value_or(1.0);
  out->temperature = static_cast<float>(
      temperature < kGreedyBelow ? temperature : std::max(temperature, kLeastTemperature));
  out->top_p = static_cast<float>(request.top_p.value_or(1.0));
  out->top_k = std::min(request.top_k.value_or(0), context.options.vocab_size);
  out->min_p = static_cast<float>(request.min_p.value_or(0.0));
  out->repetition_penalty = static_cast<float>(request.repetition_penalty.value_or(1.0));
  out->presence_penalty = static_cast<float>(request.presence_penalty);
  out->frequency_penalty = static_cast<float>(request.frequency_penalty);
  out->seed = request.seed;
  out->min_tokens = request.min_tokens;
  out->ignore_eos = request.ignore_eos;
  out->logprobs = request.logprobs;
  out->prompt_logprobs = request.prompt_logprobs;
  if (request.echo && request.logprobs && !out->prompt_logprobs) {
    out->prompt_logprobs = request.logprobs;
  }
  if (auto e = CheckTopK(context, request.logprobs, "logprobs")) return e;
  if (auto e = CheckTopK(context, request.prompt_logprobs, "prompt_logprobs")) return e;
  return AddVocabularyRules(context, request, out);
}

MaybeError CheckModel(const ServingContext& context, const std::optional<std::string>& model) {
  const std::vector<std::string>& names = context.options.model_names;
  if (!model || model->empty()) return std::nullopt;
  if (std::find(names.begin(), names.end(), *model) != names.end()) return std::nullopt;
  std::string aliases;
  for (const std::string& name : names) aliases += (aliases.empty() ? "" : ", ") + name;
  return openai::UnknownModel(*model, aliases);
}

}  // namespace llmd::engine::serving
