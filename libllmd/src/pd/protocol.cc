#include "llmd/pd/protocol.h"

#include <algorithm>

#include "llmd/json.h"
#include "llmd/pd/object_edit.h"

namespace llmd::pd {
namespace {

constexpr std::string_view kParams = "kv_transfer_params";

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string_view WithoutScheme(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  return text.starts_with(kScheme) ? text.substr(kScheme.size()) : text;
}

std::vector<std::string_view> SplitAtCommas(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t comma = text.find(',');
    parts.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

// One member read by itself: a neighbour that no number type can hold must not matter.
json::Value ValueOf(const ObjectEdit& object, std::string_view key) {
  const std::string_view raw = object.Get(key);
  return raw.empty() ? json::Value() : json::Parse(raw).value_or(json::Value());
}

// A string, or an integer spelled as one: engines differ.
std::string TextOf(const json::Value& value) {
  return value.is_int() ? std::to_string(value.AsInt()) : value.AsString();
}

}  // namespace

std::optional<Api> ApiOfPath(std::string_view path) {
  if (path == "/v1/completions") return Api::kCompletions;
  if (path == "/v1/chat/completions") return Api::kChat;
  if (path == "/v1/messages") return Api::kMessages;
  if (path == "/v1/responses") return Api::kResponses;
  if (path == "/inference/v1/generate") return Api::kGenerate;
  return std::nullopt;
}

StatusOr<PrefillReply> ParsePrefillReply(std::string_view reply) {
  LLMD_ASSIGN_OR_RETURN(const std::vector<json::ScannedMember> members, json::ScanObject(reply));
  PrefillReply out;
  if (const auto* params = json::FindMember(members, reply, kParams);
      params && params->value.In(reply) != "null") {
    out.kv_transfer_params = params->value.In(reply);
  }
  const auto* usage = json::FindMember(members, reply, "usage");
  if (usage == nullptr) return out;
  // A usage object that cannot be read (a number like 1e400) must not cost the request.
  if (const auto value = json::Parse(usage->value.In(reply)); value.ok()) {
    out.cached_tokens = (*value)["prompt_tokens_details"]["cached_tokens"].AsUint();
  }
  return out;
}

std::optional<LenderAddress> ParseLender(std::string_view kv_transfer_params) {
  const auto params = ObjectEdit::Parse(kv_transfer_params);
  if (!params.ok()) return std::nullopt;
  LenderAddress out{ValueOf(*params, "remote_engine_id").AsString(),
                    ValueOf(*params, "remote_host").AsString(),
                    ValueOf(*params, "remote_request_id").AsString(), 0};
  const std::string port = TextOf(ValueOf(*params, "remote_port"));
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  const int number = digits ? std::stoi(port) : 0;
  if (out.engine_id.empty() || out.host.empty() || out.request_id.empty() || number < 1 ||
      number > 65535)
    return std::nullopt;
  out.port = static_cast<uint16_t>(number);
  return out;
}

std::vector<std::string> PrefillCandidates(const std::vector<std::string_view>& host_port,
                                           std::optional<std::string_view> legacy_url) {
  std::vector<std::string_view> entries = host_port;
  if (entries.size() == 1) entries = SplitAtCommas(entries.front());
  if (entries.empty() && legacy_url) {
    std::string_view url = Trim(*legacy_url);
    if (url.ends_with('/')) url.remove_suffix(1);
    entries.push_back(url);
  }
  std::vector<std::string> out;
  for (std::string_view entry : entries) {
    const std::string_view candidate = WithoutScheme(Trim(entry));
    if (candidate.empty() && out.empty()) return {};
    if (!candidate.empty()) out.emplace_back(candidate);
  }
  return out;
}

std::optional<PrefillAttempts::Attempt> PrefillAttempts::After(int status) {
  if (status != 502 && status != 503 && status != 504) return std::nullopt;
  if (retries_ < max_retries_) {
    ++retries_;
    return Attempt{candidate_, true};
  }
  if (candidate_ + 1 >= candidates_) return std::nullopt;
  retries_ = 0;
  return Attempt{++candidate_, false};
}

StatusOr<FailurePolicy> ParseFailurePolicy(std::string_view text) {
  if (text == "relay") return FailurePolicy::kRelay;
  if (text == "local-decode") return FailurePolicy::kLocalDecode;
  return InvalidArgument("prefill failure policy '" + std::string(text) +
                         "': expected relay or local-decode");
}

bool DecodesLocally(FailurePolicy policy, int prefill_status) {
  return policy == FailurePolicy::kLocalDecode && (prefill_status < 400 || prefill_status > 451);
}

std::string ErrorBody(int code, std::string_view type, std::string_view message) {
  std::string out = R"({"object":"error","message":)";
  json::AppendQuoted(out, message);
  out += R"(,"type":)";
  json::AppendQuoted(out, type);
  out += R"(,"param":"","code":)" + std::to_string(code) + "}";
  return out;
}

}  // namespace llmd::pd
