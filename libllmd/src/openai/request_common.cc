#include "request_common.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace llmd::openai {
namespace {

constexpr size_t kMaxSaltChars = 128;
constexpr float kMaxBias = 100.0f;
// What the guided_* spellings of older clients and vLLM's own extensions ask for and this server
// cannot give.
constexpr std::string_view kNotBuilt[] = {
    "structured_outputs", "guided_json",           "guided_regex",         "guided_choice",
    "guided_grammar",     "use_beam_search",       "prompt_embeds",        "ec_transfer_params",
    "vllm_xargs",         "thinking_token_budget", "repetition_detection", "logprob_token_ids",
    "cache_hit_threshold"};

bool Asks(const json::Value& value) {
  if (value.is_null()) return false;
  if (value.is_bool()) return value.AsBool();
  if (value.is_array()) return !value.AsArray().empty();
  if (value.is_object()) return !value.AsObject().empty();
  if (const auto flag = CoerceBool(value)) return *flag;
  return true;
}

MaybeError ReadStop(FieldReader& reader, const ParseLimits& limits, CommonRequest* out) {
  const json::Value* stop = reader.Present("stop");
  if (stop == nullptr) return std::nullopt;
  if (stop->is_string()) {
    out->stop = {stop->AsString()};
  } else {
    reader.ReadStringList("stop", &out->stop);
  }
  if (out->stop.size() > limits.max_stop_strings) {
    return BadRequest(
        "stop may have at most " + std::to_string(limits.max_stop_strings) + " entries.", "stop",
        std::to_string(out->stop.size()));
  }
  for (const std::string& text : out->stop) {
    if (text.empty()) return BadRequest("stop cannot contain an empty string.", "stop");
  }
  return std::nullopt;
}

void ReadStreamOptions(FieldReader& reader, CommonRequest* out, MaybeError* error) {
  const json::Value* options = reader.Present("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) return reader.Fail("stream_options", "a valid dictionary", *options);
  FieldReader inner(*options, "body.stream_options");
  inner.ReadOrDefault("include_usage", &out->include_usage);
  inner.ReadOrDefault("continuous_usage_stats", &out->continuous_usage_stats);
  *error = inner.Error();
  if (!*error && !out->stream) {
    *error = BadRequest("Stream options can only be defined when `stream=True`.", "stream_options");
  }
}

MaybeError ReadLogitBias(FieldReader& reader, CommonRequest* out) {
  const json::Value* bias = reader.Present("logit_bias");
  if (bias == nullptr) return std::nullopt;
  if (!bias->is_object()) {
    reader.Fail("logit_bias", "a valid dictionary", *bias);
    return std::nullopt;
  }
  for (const auto& [key, value] : bias->AsObject()) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return BadRequest("logit_bias keys must be token ids, got '" + key + "'.", "logit_bias");
    }
    const auto number = CoerceDouble(value);
    if (!number || std::isnan(*number)) {
      reader.Fail("logit_bias." + key, "a valid number", value);
      return std::nullopt;
    }
    out->logit_bias.emplace_back(id, std::clamp(static_cast<float>(*number), -kMaxBias, kMaxBias));
  }
  return std::nullopt;
}

MaybeError ReadResponseFormat(const FieldReader& reader) {
  const json::Value* format = reader.Present("response_format");
  if (format == nullptr) return std::nullopt;
  const std::string& type = (*format)["type"].AsString();
  if (type == "text") return std::nullopt;
  return NotImplementedField("response_format");
}

MaybeError ReadCacheFields(FieldReader& reader, CommonRequest* out) {
  if (const json::Value* salt = reader.Present("cache_salt")) {
    reader.Read("cache_salt", &out->cache_salt);
    if (salt->is_string() &&
        (out->cache_salt.empty() || out->cache_salt.size() > kMaxSaltChars ||
         out->cache_salt.find_first_of(std::string_view("@/\\\0", 4)) != std::string::npos)) {
      return BadRequest("cache_salt must be 1 to 128 characters without '@', '/', '\\' and NUL.",
                        "cache_salt");
    }
  }
  if (const json::Value* params = reader.Present("kv_transfer_params")) {
    if (!params->is_object()) reader.Fail("kv_transfer_params", "a valid dictionary", *params);
    out->kv_transfer_params = *params;
  }
  return std::nullopt;
}

void ReadTruncation(FieldReader& reader, CommonRequest* out) {
  reader.Read("truncate_prompt_tokens", &out->truncate_prompt_tokens);
  const json::Value* side = reader.Present("truncation_side");
  if (side == nullptr) return;
  if (side->AsString() != "left" && side->AsString() != "right") {
    return reader.Fail("truncation_side", "'left' or 'right'", *side);
  }
  out->truncate_left = side->AsString() == "left";
}

void ReadScalars(FieldReader& reader, CommonRequest* out) {
  reader.Read("model", &out->model);
  reader.ReadOrDefault("n", &out->n);
  reader.Read("temperature", &out->temperature);
  reader.Read("top_p", &out->top_p);
  reader.Read("top_k", &out->top_k);
  reader.Read("min_p", &out->min_p);
  reader.Read("repetition_penalty", &out->repetition_penalty);
  reader.ReadOrDefault("presence_penalty", &out->presence_penalty);
  reader.ReadOrDefault("frequency_penalty", &out->frequency_penalty);
  reader.Read("seed", &out->seed);
  if (out->seed == -1) out->seed.reset();
  reader.ReadIntList("stop_token_ids", &out->stop_token_ids);
  reader.Read("include_stop_str_in_output", &out->include_stop_str_in_output);
  reader.Read("ignore_eos", &out->ignore_eos);
  reader.Read("min_tokens", &out->min_tokens);
  reader.ReadOrDefault("stream", &out->stream);
  reader.ReadStringList("bad_words", &out->bad_words);
  reader.Read("skip_special_tokens", &out->skip_special_tokens);
  reader.Read("priority", &out->priority);
  reader.Read("request_id", &out->request_id);
  reader.ReadOrDefault("return_token_ids", &out->return_token_ids);
  reader.ReadOrDefault("return_tokens_as_token_ids", &out->return_tokens_as_token_ids);
  reader.ReadOrDefault("echo", &out->echo);
  reader.Read("add_special_tokens", &out->add_special_tokens);
  ReadTruncation(reader, out);
}

MaybeError ReadAllowed(FieldReader& reader, CommonRequest* out) {
  reader.ReadIntList("allowed_token_ids", &out->allowed_token_ids);
  if (reader.Present("allowed_token_ids") != nullptr && out->allowed_token_ids.empty()) {
    return BadRequest("allowed_token_ids cannot be empty.", "allowed_token_ids");
  }
  return std::nullopt;
}

// One numeric rule: `ok` or the message with the value.
MaybeError Rule(bool ok, std::string_view field, std::string_view rule, double value) {
  if (ok) return std::nullopt;
  const std::string shown = NumberText(value);
  return BadRequest(std::string(field) + " must be " + std::string(rule) + ", got " + shown + ".",
                    field, shown);
}

MaybeError CheckSampling(const CommonRequest& r) {
  const double temperature = r.temperature.value_or(1.0);
  const double top_p = r.top_p.value_or(1.0);
  const double min_p = r.min_p.value_or(0.0);
  const double repetition = r.repetition_penalty.value_or(1.0);
  const int top_k = r.top_k.value_or(0);
  for (MaybeError error : {
           Rule(temperature >= 0 && temperature <= 2, "temperature", "in [0, 2]", temperature),
           Rule(top_p > 0 && top_p <= 1, "top_p", "in (0, 1]", top_p),
           Rule(top_k >= -1, "top_k", "0 or -1 (disable), or at least 1", top_k),
           Rule(min_p >= 0 && min_p <= 1, "min_p", "in [0, 1]", min_p),
           Rule(repetition > 0 && std::isfinite(repetition), "repetition_penalty",
                "greater than zero and finite", repetition),
           Rule(r.presence_penalty >= -2 && r.presence_penalty <= 2, "presence_penalty",
                "in [-2, 2]", r.presence_penalty),
           Rule(r.frequency_penalty >= -2 && r.frequency_penalty <= 2, "frequency_penalty",
                "in [-2, 2]", r.frequency_penalty),
       }) {
    if (error) return error;
  }
  return std::nullopt;
}

MaybeError CheckCounts(const CommonRequest& r, const ParseLimits& limits) {
  if (auto e = Rule(r.n >= 1, "n", "at least 1", r.n)) return e;
  if (auto e = Rule(r.n <= limits.max_n, "n", "at most " + std::to_string(limits.max_n), r.n)) {
    return e;
  }
  if (r.n > 1 && r.temperature == 0.0) {
    return BadRequest("n must be 1 when using greedy sampling, got " + std::to_string(r.n) + ".",
                      "n", std::to_string(r.n));
  }
  if (auto e = Rule(r.min_tokens >= 0, "min_tokens", "at least 0", r.min_tokens)) return e;
  if (r.max_tokens && r.min_tokens > *r.max_tokens) {
    return BadRequest("min_tokens must be less than or equal to max_tokens=" +
                          std::to_string(*r.max_tokens) + ".",
                      "min_tokens", std::to_string(r.min_tokens));
  }
  const int truncate = r.truncate_prompt_tokens.value_or(1);
  return Rule(truncate >= -1, "truncate_prompt_tokens", "at least -1", truncate);
}

}  // namespace

std::string NumberText(double value) {
  if (value == std::trunc(value) && std::fabs(value) < 1e15) {
    return std::to_string(static_cast<int64_t>(value));
  }
  return json::Value(value).Dump();
}

MaybeError ParseBody(std::string_view body, json::Value* out) {
  StatusOr<json::Value> parsed = json::Parse(body);
  if (!parsed.ok()) return SchemaError("body", "JSON decode error: " + parsed.status().message());
  if (!parsed->is_object()) {
    return SchemaError("body", "Input should be a valid dictionary, got a JSON " +
                                   std::string(parsed->TypeName()));
  }
  *out = std::move(*parsed);
  return std::nullopt;
}

MaybeError RefuseFields(const FieldReader& reader, std::span<const std::string_view> keys) {
  for (std::string_view key : keys) {
    const json::Value* value = reader.Find(key);
    if (value != nullptr && Asks(*value)) return NotImplementedField(key);
  }
  return std::nullopt;
}

MaybeError ReadStrictInt(FieldReader& reader, std::string_view key, std::optional<int>* out) {
  const json::Value* value = reader.Present(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    return BadRequest("`" + std::string(key) + "` must be an integer.", key);
  }
  reader.Read(key, out);
  return std::nullopt;
}

MaybeError ReadCommon(FieldReader& reader, const ParseLimits& limits, CommonRequest* out) {
  ReadScalars(reader, out);
  if (auto e = RefuseFields(reader, kNotBuilt)) return e;
  if (auto e = ReadResponseFormat(reader)) return e;
  if (auto e = ReadStop(reader, limits, out)) return e;
  if (auto e = ReadLogitBias(reader, out)) return e;
  if (auto e = ReadAllowed(reader, out)) return e;
  if (auto e = ReadCacheFields(reader, out)) return e;
  if (auto e = ReadStrictInt(reader, "prompt_logprobs", &out->prompt_logprobs)) return e;
  MaybeError error;
  ReadStreamOptions(reader, out, &error);
  return error;
}

MaybeError CheckCommon(const CommonRequest& request, const ParseLimits& limits) {
  if (auto e = CheckSampling(request)) return e;
  if (auto e = CheckCounts(request, limits)) return e;
  if (!request.prompt_logprobs) return std::nullopt;
  if (request.stream && *request.prompt_logprobs != 0) {
    return BadRequest("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs");
  }
  return Rule(*request.prompt_logprobs >= -1, "prompt_logprobs", "a positive value or -1",
              *request.prompt_logprobs);
}

}  // namespace llmd::openai
