// TokenizedPrompt by estimate: 4 bytes of text are one pseudo-token (endpoint-picker.md §2.6).
// Token arrays are taken as they are.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/parser/body_reader.h"

namespace llmd::sched {
namespace {

constexpr size_t kImageTokens = 640 * 360 / 1024;  // size unknown: the default of the field

// Packs bytes little-endian into 32-bit pseudo-tokens, zero padded at the end of a prompt.
class Packer {
 public:
  explicit Packer(Attribute& out) : out_(out) {}
  // `quoted` is a JSON string; anything else packs nothing.
  void Text(std::string_view quoted) {
    if (quoted.size() < 2 || quoted[0] != '"') return;
    quoted = quoted.substr(1, quoted.size() - 2);
    filled_ += json::UnescapeTo(quoted, Room(quoted.size() + json::kUnescapeSlack));
  }
  void Bytes(std::string_view s) {
    if (!s.empty()) std::memcpy(Room(s.size()), s.data(), s.size());
    filled_ += s.size();
  }
  void Image(std::string_view url) {
    Align();
    const auto token = static_cast<uint32_t>(XXH64(url.data(), url.size(), 0));
    for (size_t i = 0; i < kImageTokens; ++i) Token(token);
  }
  // Between prompts or images, so at a word's beginning.
  void Token(uint32_t id) {
    std::memcpy(Room(kWord), &id, kWord);
    filled_ += kWord;
  }
  void EndPrompt() {
    Align();
    out_.bounds.push_back(filled_ / kWord);
  }
  // No more follows.
  void Finish() { out_.tokens.resize(filled_ / kWord); }

 private:
  static constexpr size_t kWord = sizeof(uint32_t);
  // Where the next `n` bytes go.
  char* Room(size_t n) {
    const size_t words = (filled_ + n + kWord - 1) / kWord;
    if (words > out_.tokens.size()) out_.tokens.resize(std::max(words, out_.tokens.size() * 2));
    return reinterpret_cast<char*>(out_.tokens.data()) + filled_;
  }
  void Align() {
    const size_t pad = (kWord - filled_ % kWord) % kWord;
    std::memset(Room(pad), 0, pad);
    filled_ += pad;
  }
  Attribute& out_;
  size_t filled_ = 0;  // bytes of out_.tokens in use
};

class Estimator {
 public:
  Estimator(const RequestContext& request, Attribute& out)
      : request_(request), out_(out), pack_(out) {}

  Status Run() {
    LLMD_RETURN_IF_ERROR(Walk());
    pack_.Finish();
    return OkStatus();
  }

 private:
  // Every text below is part of a body that the parser has scanned.
  static constexpr json::ParseLimits kScanned{.max_depth = 10'000, .validated = true};

  Status Walk() {
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

  // vLLM's token_ids, or SGLang's input_ids or text.
  Status Generate() {
    for (const char* key : {"token_ids", "input_ids"}) {
      if (const std::string_view ids = RawMember(request_, key); !ids.empty()) return Prompt(ids);
    }
    return Prompt(RawMember(request_, "text"));
  }

  Status Prompt(std::string_view raw) {
    if (!raw.starts_with('[')) {
      pack_.Text(raw);
      pack_.EndPrompt();
      return OkStatus();
    }
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::Span> items, json::ScanArray(raw, kScanned));
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
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::Span> messages, json::ScanArray(raw, kScanned));
    for (const json::Span& span : messages) LLMD_RETURN_IF_ERROR(Message(span.In(raw)));
    pack_.EndPrompt();
    return OkStatus();
  }

  Status Message(std::string_view text) {
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::ScannedMember> members,
                          json::ScanObject(text, kScanned));
    if (const auto* role = json::FindMember(members, text, "role"))
      pack_.Text(role->value.In(text));
    const auto* content = json::FindMember(members, text, "content");
    return content ? Content(content->value.In(text)) : OkStatus();
  }

  Status Content(std::string_view raw) {
    if (!raw.starts_with('[')) {
      pack_.Text(raw);
      return OkStatus();
    }
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::Span> parts, json::ScanArray(raw, kScanned));
    for (const json::Span& part : parts) LLMD_RETURN_IF_ERROR(Part(part.In(raw)));
    return OkStatus();
  }

  Status Part(std::string_view text) {
    LLMD_ASSIGN_OR_RETURN(const std::vector<json::ScannedMember> members,
                          json::ScanObject(text, kScanned));
    for (const char* key : {"text", "thinking", "id", "name", "input", "content"}) {
      const auto* member = json::FindMember(members, text, key);
      if (member == nullptr) continue;
      const std::string_view raw = member->value.In(text);
      if (raw.starts_with('"'))
        pack_.Text(raw);
      else
        pack_.Bytes(raw);
    }
    for (const char* key : {"image_url", "source", "input_audio", "video_url"}) {
      if (const auto* media = json::FindMember(members, text, key))
        pack_.Image(media->value.In(text));
    }
    return OkStatus();
  }

  const RequestContext& request_;
  Attribute& out_;
  Packer pack_;
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
