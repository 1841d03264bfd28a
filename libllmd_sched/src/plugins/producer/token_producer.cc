// TokenizedPrompt by estimate: 4 bytes of text are one pseudo-token (endpoint-picker.md §2.6).
// Token arrays are taken as they are.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <charconv>
#include <cstring>

#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/parser/body_reader.h"

namespace llmd::sched {
namespace {

constexpr size_t kImageTokens = 640 * 360 / 1024;  // size unknown: the default of the field

// Packs bytes little-endian into 32-bit pseudo-tokens, zero padded.
class Packer {
 public:
  explicit Packer(Attribute& out) : out_(out) {}
  void Bytes(std::string_view s) {
    while (!s.empty() && filled_ > 0) {
      Byte(s[0]);
      s.remove_prefix(1);
    }
    const size_t words = s.size() / 4, at = out_.tokens.size();
    out_.tokens.resize(at + words);
    if (words > 0) std::memcpy(out_.tokens.data() + at, s.data(), words * 4);
    for (char c : s.substr(words * 4)) Byte(c);
  }
  void Image(std::string_view url) {
    Align();
    out_.tokens.insert(out_.tokens.end(), kImageTokens,
                       static_cast<uint32_t>(XXH64(url.data(), url.size(), 0)));
  }
  void Token(uint32_t id) { out_.tokens.push_back(id); }
  void EndPrompt() {
    Align();
    out_.bounds.push_back(out_.tokens.size());
  }

 private:
  void Byte(char c) {
    word_ |= static_cast<uint32_t>(static_cast<unsigned char>(c)) << (8 * filled_);
    if (++filled_ == 4) Align();
  }
  void Align() {
    if (filled_ > 0) out_.tokens.push_back(word_);
    word_ = 0;
    filled_ = 0;
  }
  Attribute& out_;
  uint32_t word_ = 0;
  int filled_ = 0;
};

class Estimator {
 public:
  Estimator(const RequestContext& request, Attribute& out)
      : request_(request), out_(out), pack_(out) {}

  Status Run() {
    switch (request_.api) {
      case Api::kChat:
      case Api::kMessages:
        return Chat();
      case Api::kGenerate:
        return Generate();
      case Api::kCompletions:
        return Prompt(RawMember(request_, "prompt"));
      case Api::kNone:
        return FailedPrecondition("the body was not parsed");
      default:
        break;
    }
    for (const char* key : {"instructions", "tools", "input"})
      pack_.Bytes(RawMember(request_, key));
    pack_.EndPrompt();
    return OkStatus();
  }

 private:
  // vLLM's token_ids, or SGLang's input_ids or text.
  Status Generate() {
    for (const char* key : {"token_ids", "input_ids"}) {
      if (const std::string_view ids = RawMember(request_, key); !ids.empty()) return Prompt(ids);
    }
    return Prompt(RawMember(request_, "text"));
  }

  Status Prompt(std::string_view raw) {
    if (!raw.starts_with('[')) {
      Text(raw);
      pack_.EndPrompt();
      return OkStatus();
    }
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::Span> items, json::ScanArray(raw));
    const char first = items.empty() ? '0' : raw[items[0].begin];
    if (first != '"' && first != '[') return Ids(raw);
    for (const json::Span& item : items) LLMD_RETURN_IF_ERROR(Prompt(item.In(raw)));
    return OkStatus();
  }

  Status Ids(std::string_view raw) {
    out_.exact = true;
    const char* p = raw.data();
    const char* const end = p + raw.size();
    while (p < end) {
      uint32_t id = 0;
      const auto [next, ec] = std::from_chars(p, end, id);
      if (ec == std::errc()) pack_.Token(id);
      p = ec == std::errc() ? next : p + 1;
    }
    pack_.EndPrompt();
    return OkStatus();
  }

  Status Chat() {
    pack_.Bytes(RawMember(request_, "tools"));
    if (request_.api == Api::kMessages)
      LLMD_RETURN_IF_ERROR(Content(RawMember(request_, "system")));
    const std::string_view raw = RawMember(request_, "messages");
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::Span> messages, json::ScanArray(raw));
    for (const json::Span& span : messages) LLMD_RETURN_IF_ERROR(Message(span.In(raw)));
    pack_.EndPrompt();
    return OkStatus();
  }

  Status Message(std::string_view text) {
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::ScannedMember> members, json::ScanObject(text));
    if (const auto* role = json::FindMember(members, text, "role")) Text(role->value.In(text));
    const auto* content = json::FindMember(members, text, "content");
    return content ? Content(content->value.In(text)) : OkStatus();
  }

  Status Content(std::string_view raw) {
    if (!raw.starts_with('[')) {
      Text(raw);
      return OkStatus();
    }
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::Span> parts, json::ScanArray(raw));
    for (const json::Span& part : parts) LLMD_RETURN_IF_ERROR(Part(part.In(raw)));
    return OkStatus();
  }

  Status Part(std::string_view text) {
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::ScannedMember> members, json::ScanObject(text));
    for (const char* key : {"text", "thinking", "id", "name", "input", "content"}) {
      const auto* member = json::FindMember(members, text, key);
      if (member == nullptr) continue;
      const std::string_view raw = member->value.In(text);
      if (raw.starts_with('"'))
        Text(raw);
      else
        pack_.Bytes(raw);
    }
    for (const char* key : {"image_url", "source", "input_audio", "video_url"}) {
      if (const auto* media = json::FindMember(members, text, key))
        pack_.Image(media->value.In(text));
    }
    return OkStatus();
  }

  // Packs the runs between escapes in place; only \u needs the string decoded first.
  void Text(std::string_view quoted) {
    if (quoted.find("\\u") != std::string_view::npos || quoted.size() < 2 || quoted[0] != '"')
      return pack_.Bytes(StringValue(quoted, buffer_));
    std::string_view rest = quoted.substr(1, quoted.size() - 2);
    for (size_t at = rest.find('\\'); at != std::string_view::npos && at + 1 < rest.size();
         at = rest.find('\\')) {
      pack_.Bytes(rest.substr(0, at));
      const char decoded = Unescaped(rest[at + 1]);
      pack_.Bytes(std::string_view(&decoded, 1));
      rest.remove_prefix(at + 2);
    }
    pack_.Bytes(rest);
  }
  static char Unescaped(char c) {
    switch (c) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'b':
        return '\b';
      case 'f':
        return '\f';
      default:
        return c;  // a quote, a slash or a backslash
    }
  }

  const RequestContext& request_;
  Attribute& out_;
  Packer pack_;
  std::string buffer_;
};

class TokenProducer final : public Producer {
 public:
  explicit TokenProducer(DataKey key) : key_(key) {}
  Status Produce(RequestContext& request, const Snapshot&) override {
    if (!request.has_body || request.api == Api::kNone) return OkStatus();
    Attribute& out = request.Put(key_);
    Status status = Estimator(request, out).Run();
    if (!status.ok()) out.Clear();
    return status;
  }

 private:
  const DataKey key_;
};

}  // namespace

Status RegisterTokenProducer(PluginRegistry& registry) {
  for (const char* type : {"token-producer", "tokenizer"}) {
    LLMD_RETURN_IF_ERROR(AddPlugin(
        registry,
        {.type = type,
         .kind = "producer",
         .stability = type[5] == '-' ? Stability::kBeta : Stability::kDeprecated,
         .help = "Estimates the prompt's tokens: 4 bytes of text are one.",
         .params = {{"estimate", "{}", "the only backend of this build; takes no settings"}},
         .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
           Params params(args.parameters);
           Params estimate(params.node("estimate"));
           if (Status status = estimate.Finish(); !status.ok()) params.Fail(std::move(status));
           if (params.Has("vllm"))
             params.Fail("vllm",
                         "rendering by an engine is not supported yet; leave it out to estimate");
           const DataKey key = args.env.Produce("TokenizedPrompt");
           return Done(params, std::make_unique<TokenProducer>(key));
         }}));
  }
  return OkStatus();
}

}  // namespace llmd::sched
