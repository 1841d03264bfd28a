#include "plugins/parser/body_reader.h"

#include <charconv>

#include "llmd/json_scan.h"

namespace llmd::sched {

Status ReadBody(RequestContext& request, size_t begin, size_t size) {
  // Go's limit; deeper bodies are answered with 400 there too.
  const Status scanned = json::ScanObjectInto(
      request.body.substr(begin, size), json::ParseLimits{.max_depth = 10'000}, request.members);
  if (!scanned.ok())
    return InvalidArgument("invalid JSON in request body: " + scanned.message());
  request.json_begin = begin;
  for (json::ScannedMember& m : request.members) {
    for (size_t* at : {&m.key.begin, &m.key.end, &m.value.begin, &m.value.end}) *at += begin;
  }
  if (const std::string_view model = RawMember(request, "model"); !model.empty()) {
    if (model[0] != '"') return InvalidArgument("model in request body must be a string");
    LLMD_ASSIGN_OR_RETURN(request.model, json::Unquote(model));
  }
  request.streaming = RawMember(request, "stream") == "true";
  for (const char* key : {"max_completion_tokens", "max_output_tokens", "max_tokens"}) {
    request.max_tokens = LaxInt(RawMember(request, key), request.max_tokens);
  }
  std::string_view salt = RawMember(request, "cache_salt");
  if (salt.empty() && request.api == Api::kGenerate) salt = RawMember(request, "extra_key");
  if (salt.starts_with('"')) {
    LLMD_ASSIGN_OR_RETURN(request.cache_salt, json::Unquote(salt));
  }
  return OkStatus();
}

std::string_view RawMember(const RequestContext& request, std::string_view key) {
  const json::ScannedMember* member = json::FindMember(request.members, request.body, key);
  return member ? member->value.In(request.body) : std::string_view();
}

std::string_view StringValue(std::string_view quoted, std::string& buffer) {
  if (quoted.size() < 2 || quoted[0] != '"') return {};
  const std::string_view inner = quoted.substr(1, quoted.size() - 2);
  if (inner.find('\\') == std::string_view::npos) return inner;
  StatusOr<std::string> value = json::Unquote(quoted);
  buffer = value.ok() ? std::move(*value) : std::string();
  return buffer;
}

int64_t LaxInt(std::string_view raw, int64_t fallback) {
  if (raw.size() > 2 && raw.front() == '"') raw = raw.substr(1, raw.size() - 2);
  double value = 0;
  const auto [end, ec] = std::from_chars(raw.data(), raw.data() + raw.size(), value);
  const bool whole = ec == std::errc() && end == raw.data() + raw.size() && !raw.empty();
  return whole && value >= 0 && value < 1e15 ? static_cast<int64_t>(value) : fallback;
}

}  // namespace llmd::sched
