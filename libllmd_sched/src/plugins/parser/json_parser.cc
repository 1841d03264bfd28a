#include "plugins/parser/json_parser.h"

#include <charconv>
#include <span>

#include "llmd/json_scan.h"
#include "plugins/common.h"
#include "plugins/parser/body_reader.h"

namespace llmd::sched {
namespace {

// The members of one JSON object; the last of a name counts.
struct Members {
  std::string_view text;
  std::vector<json::ScannedMember> list;  // its memory is used again

  bool Read(std::string_view object) {
    text = object;
    return json::ScanObjectInto(object, {}, list).ok();
  }
  std::string_view Find(std::string_view key) const {
    for (auto member = list.rbegin(); member != list.rend(); ++member) {
      if (member->KeyText(text) == key) return member->value.In(text);
    }
    return {};
  }
  void Merge(std::string_view key, int64_t* into) const {
    const std::string_view value = Find(key);
    double count = -1;
    const char* const end = value.data() + value.size();
    if (value.empty() || std::from_chars(value.data(), end, count).ptr != end) return;
    if (count >= 0 && count < 0x1p53) *into = static_cast<int64_t>(count);
  }
};

std::string_view PromptOf(const RequestContext& request) {
  for (const char* key : {"prompt", "messages", "input"}) {
    if (const std::string_view raw = RawMember(request, key); !raw.empty()) return raw;
  }
  return {};
}

// What one kind of request must have: the first of `members` that is there, of a type that may
// hold a prompt.
struct Needed {
  struct Member {
    std::string_view name;
    std::string_view begins;  // first bytes of the types taken
    bool not_empty = false;   // of a list
  };
  std::span<const Member> members;
  std::string_view expected;
};

constexpr Needed::Member kMessages[] = {{"messages", "[", true}};
constexpr Needed::Member kPrompts[] = {{"prompt", "\"["}, {"prompt_embeds", "\"["}};
constexpr Needed::Member kInputs[] = {{"input", "\"["}, {"messages", "[", true}};
constexpr Needed::Member kInput[] = {{"input", "\"["}};
constexpr Needed::Member kText[] = {{"prompt", "\""}};
constexpr Needed::Member kTokens[] = {
    {"token_ids", "["}, {"input_ids", "["}, {"text", "\"["}, {"input_embeds", "["}};

Needed NeedsOf(Api api) {
  switch (api) {
    case Api::kChat:
    case Api::kMessages:
      return {kMessages, "'messages', a list that is not empty"};
    case Api::kCompletions:
      return {kPrompts, "'prompt', a string or a list"};
    case Api::kEmbeddings:
      return {kInputs, "'input', a string or a list"};
    case Api::kResponses:
      return {kInput, "'input', a string or a list"};
    case Api::kImages:
      return {kText, "'prompt', a string"};
    case Api::kGenerate:
      return {kTokens, "token ids or a text"};
    case Api::kConversations:
    case Api::kNone:
      break;
  }
  return {};
}

bool IsEmptyList(std::string_view raw) {
  return raw.find_first_not_of(" \t\r\n", 1) == raw.size() - 1;
}

Status CheckPrompt(const RequestContext& request) {
  const Needed needed = NeedsOf(request.api);
  if (needed.members.empty()) return OkStatus();
  for (const Needed::Member& member : needed.members) {
    const std::string_view raw = RawMember(request, member.name);
    if (raw.empty() || raw == "null") continue;
    const bool fits = member.begins.find(raw[0]) != std::string_view::npos;
    if (fits && !(member.not_empty && IsEmptyList(raw))) return OkStatus();
    break;
  }
  return InvalidArgument("request body: expected " + std::string(needed.expected));
}

}  // namespace

void ReadJsonUsage(std::string_view json_object, Usage* usage) {
  static thread_local Members members, details;
  if (!members.Read(json_object)) return;
  for (const char* key : {"input_tokens", "prompt_tokens"})
    members.Merge(key, &usage->prompt_tokens);
  for (const char* key : {"output_tokens", "completion_tokens"})
    members.Merge(key, &usage->completion_tokens);
  members.Merge("total_tokens", &usage->total_tokens);
  members.Merge("cache_read_input_tokens", &usage->cached_tokens);
  for (const char* key : {"input_tokens_details", "prompt_tokens_details"}) {
    const std::string_view inner = members.Find(key);
    if (inner.starts_with('{') && details.Read(inner))
      details.Merge("cached_tokens", &usage->cached_tokens);
  }
}

Status ParseJson(RequestContext& request, size_t begin, size_t size) {
  LLMD_RETURN_IF_ERROR(ReadBody(request, begin, size));
  LLMD_RETURN_IF_ERROR(CheckPrompt(request));
  request.prompt_json = PromptOf(request);
  return OkStatus();
}

std::vector<std::string_view> JsonParser::PathSuffixes() const {
  std::vector<std::string_view> out;
  out.reserve(routes_.size());
  for (const Route& route : routes_) out.push_back(route.suffix);
  return out;
}

Status JsonParser::Parse(RequestContext& request) {
  size_t longest = 0;
  for (const Route& route : routes_) {
    if (route.suffix.size() <= longest || !request.path.ends_with(route.suffix)) continue;
    longest = route.suffix.size();
    request.api = route.api;
    request.skip_response = route.skip_response;
  }
  return ParseJson(request, 0, request.body.size());
}

Status AddJsonParser(PluginRegistry& registry, std::string type, std::string help,
                     const std::vector<JsonParser::Route>& routes) {
  return AddPlugin(registry,
                   {.type = std::move(type),
                    .kind = "parser",
                    .help = std::move(help),
                    .make = [routes](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                      Params params(args.parameters);
                      return Done(params, std::make_unique<JsonParser>(routes));
                    }});
}

}  // namespace llmd::sched
