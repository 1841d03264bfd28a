#include "plugins/producer/token_estimate.h"

#include <array>
#include <charconv>

#include "llmd/json_scan.h"
#include "plugins/parser/body_reader.h"
#include "plugins/producer/packer.h"

namespace llmd::sched {
namespace {

// Every text below is part of a body that the parser has scanned.
constexpr json::ParseLimits kScanned{.max_depth = 10'000, .validated = true};
constexpr int kMaxContentDepth = 8;  // tool results inside tool results

using Members = std::vector<json::ScannedMember>;

std::string_view Find(const Members& members, std::string_view text, std::string_view key) {
  const json::ScannedMember* member = json::FindMember(members, text, key);
  return member ? member->value.In(text) : std::string_view();
}

// The members of a JSON object while they are read. Memory is used again, by depth of content, as
// every chat request comes through here.
class Scanned {
 public:
  Scanned(std::string_view text, int depth) : members_(ForDepth(depth)) {
    status_ = json::ScanObjectInto(text, kScanned, members_);
  }
  ~Scanned() {
    if (members_.capacity() > kKeptMembers) Members().swap(members_);
  }
  Scanned(const Scanned&) = delete;
  Scanned& operator=(const Scanned&) = delete;
  const Status& status() const { return status_; }
  const Members& operator*() const { return members_; }

 private:
  static constexpr size_t kKeptMembers = 64;
  static Members& ForDepth(int depth) {
    thread_local std::array<Members, kMaxContentDepth + 2> kept;
    return kept[static_cast<size_t>(depth)];
  }
  Members& members_;
  Status status_;
};

// The value of a string member of the JSON object `text`; "" when there is none.
std::string_view StringIn(std::string_view text, std::string_view key, std::string& buffer) {
  const StatusOr<Members> members = json::ScanObject(text, kScanned);
  return members.ok() ? StringValue(Find(*members, text, key), buffer) : std::string_view();
}

template <typename Each>
void EachTokenId(std::string_view json_array, Each each) {
  const char* p = json_array.data();
  const char* const end = p + json_array.size();
  while (p < end) {
    uint32_t id = 0;
    const auto [next, ec] = std::from_chars(p, end, id);
    if (ec == std::errc()) each(id);
    p = ec == std::errc() ? next : p + 1;
  }
}

class Estimator {
 public:
  Estimator(const RequestContext& request, const MediaEstimate& media, Attribute& out)
      : request_(request), media_(media), out_(out), pack_(out) {}

  Status Run() {
    LLMD_RETURN_IF_ERROR(Walk());
    pack_.Finish();
    return OkStatus();
  }

 private:
  Status Walk() {
    if (request_.has_prompt_tokens) return Given();
    if (request_.prompt_text.data() != nullptr) {
      pack_.Bytes(request_.prompt_text);
      pack_.EndPrompt();
      return OkStatus();
    }
    switch (request_.api) {
      case Api::kChat:
      case Api::kMessages:
        return Chat();
      case Api::kGenerate:
        return Generate();
      case Api::kCompletions:
      case Api::kImages:
        return Prompt(RawMember(request_, "prompt"));
      case Api::kEmbeddings:
        return Embeddings(RawMember(request_, "input"));
      case Api::kConversations:
        return Whole(RawMember(request_, "items"));
      case Api::kResponses:
        return Responses();
      case Api::kNone:
        break;
    }
    return FailedPrecondition("the body was not parsed");
  }

  Status Given() {
    out_.exact = true;
    for (uint32_t id : request_.prompt_tokens) pack_.Token(id);
    out_.media = request_.media;
    pack_.EndPrompt();
    return OkStatus();
  }

  // vLLM's token_ids with the places of media, or SGLang's input_ids or text.
  Status Generate() {
    if (const std::string_view features = RawMember(request_, "features"); !features.empty())
      ReadFeatures(features, 0, out_.media);
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
    const size_t first = raw.find_first_not_of(" \t\r\n", 1);
    if (raw[first] != '"' && raw[first] != '[') return Ids(raw);
    return json::VisitArray(raw, kScanned, [this](std::string_view item) {
      // An array inside an array is token ids; what is deeper is no prompt.
      if (item.starts_with('[')) return Ids(item);
      pack_.Text(item);
      pack_.EndPrompt();
      return OkStatus();
    });
  }

  Status Ids(std::string_view raw) {
    out_.exact = true;
    EachTokenId(raw, [this](uint32_t id) { pack_.Token(id); });
    pack_.EndPrompt();
    return OkStatus();
  }

  Status Embeddings(std::string_view raw) {
    const size_t first = raw.find_first_not_of(" \t\r\n[");
    const bool ids = raw.starts_with('[') && first != std::string_view::npos && raw[first] != '"' &&
                     raw[first] != '{';
    return ids ? Prompt(raw) : Whole(raw);
  }

  Status Whole(std::string_view json) {
    pack_.Bytes(json);
    pack_.EndPrompt();
    return OkStatus();
  }

  // The text of a JSON array with one object a member.
  Status Responses() {
    std::string_view before = "[{\"";
    for (const char* key : {"instructions", "tools", "input"}) {
      const std::string_view raw = RawMember(request_, key);
      if (raw.empty()) continue;
      for (std::string_view piece : {before, std::string_view(key), std::string_view("\":"), raw})
        pack_.Bytes(piece);
      before = "},{\"";
    }
    return Whole(before.starts_with('[') ? "[]" : "}]");
  }

  Status Chat() {
    pack_.Bytes(RawMember(request_, "tools"));
    if (request_.api == Api::kMessages)
      LLMD_RETURN_IF_ERROR(Content(RawMember(request_, "system"), 0));
    const std::string_view raw = RawMember(request_, "messages");
    LLMD_RETURN_IF_ERROR(json::VisitArray(
        raw, kScanned, [this](std::string_view message) { return Message(message); }));
    pack_.EndPrompt();
    return OkStatus();
  }

  Status Message(std::string_view text) {
    const Scanned members(text, 0);
    LLMD_RETURN_IF_ERROR(members.status());
    pack_.Text(Find(*members, text, "role"));
    LLMD_RETURN_IF_ERROR(Content(Find(*members, text, "content"), 0));
    pack_.Bytes(Find(*members, text, "tool_calls"));
    return OkStatus();
  }

  Status Content(std::string_view raw, int depth) {
    if (!raw.starts_with('[')) {
      pack_.Text(raw);
      return OkStatus();
    }
    if (depth > kMaxContentDepth) return InvalidArgument("content is nested too deeply");
    return json::VisitArray(raw, kScanned,
                            [this, depth](std::string_view part) { return Part(part, depth); });
  }

  Status Part(std::string_view text, int depth) {
    const Scanned members(text, depth + 1);
    LLMD_RETURN_IF_ERROR(members.status());
    for (const char* key : {"text", "thinking", "id", "name", "input"}) {
      const std::string_view raw = Find(*members, text, key);
      if (raw.starts_with('"'))
        pack_.Text(raw);
      else
        pack_.Bytes(raw);
    }
    if (const std::string_view inner = Find(*members, text, "content"); !inner.empty())
      LLMD_RETURN_IF_ERROR(Content(inner, depth + 1));
    Media(*members, text);
    return OkStatus();
  }

  void Media(const Members& members, std::string_view text) {
    std::string buffer;
    if (const auto raw = Find(members, text, "image_url"); !raw.empty()) {
      const std::string_view url = UrlOf(raw, buffer);
      if (!url.empty()) pack_.Media(Modality::kImage, url, media_.ImageByUrl(url));
    }
    if (const auto raw = Find(members, text, "video_url"); !raw.empty()) {
      const std::string_view url = UrlOf(raw, buffer);
      if (!url.empty()) pack_.Media(Modality::kVideo, url, media_.Video(request_));
    }
    if (const auto raw = Find(members, text, "audio_url"); !raw.empty()) {
      const std::string_view url = UrlOf(raw, buffer);
      if (!url.empty()) pack_.Media(Modality::kAudio, url, media_.Audio(url));
    }
    if (const auto raw = Find(members, text, "input_audio"); !raw.empty()) {
      const std::string_view data = StringIn(raw, "data", buffer);
      if (!data.empty()) pack_.Media(Modality::kAudio, data, media_.Audio(data));
    }
    if (Find(members, text, "type") == "\"image\"") Source(Find(members, text, "source"));
  }

  // Anthropic's image: a URL or base64.
  void Source(std::string_view raw) {
    std::string buffer;
    if (const std::string_view url = StringIn(raw, "url", buffer); !url.empty())
      return pack_.Media(Modality::kImage, url, media_.ImageByUrl(url));
    const std::string_view data = StringIn(raw, "data", buffer);
    if (!data.empty()) pack_.Media(Modality::kImage, data, media_.ImageByData(data));
  }

  // {"url": "…"}, or the URL alone.
  static std::string_view UrlOf(std::string_view raw, std::string& buffer) {
    return raw.starts_with('"') ? StringValue(raw, buffer) : StringIn(raw, "url", buffer);
  }

  const RequestContext& request_;
  const MediaEstimate& media_;
  Attribute& out_;
  Packer pack_;
};

}  // namespace

Status EstimateTokens(const RequestContext& request, const MediaEstimate& media, Attribute& out) {
  return Estimator(request, media, out).Run();
}

void ReadTokenIds(std::string_view json_array, std::vector<uint32_t>& tokens) {
  EachTokenId(json_array, [&](uint32_t id) { tokens.push_back(id); });
}

void ReadFeatures(std::string_view json, size_t prompt, std::vector<MediaItem>& media) {
  const StatusOr<json::Value> features = json::Parse(json);
  if (!features.ok()) return;
  for (Modality modality : {Modality::kImage, Modality::kVideo, Modality::kAudio}) {
    const json::Array& hashes = (*features)["mm_hashes"][NameOf(modality)].AsArray();
    const json::Array& places = (*features)["mm_placeholders"][NameOf(modality)].AsArray();
    for (size_t i = 0; i < std::min(hashes.size(), places.size()); ++i) {
      const int64_t offset = places[i]["offset"].AsInt(-1), length = places[i]["length"].AsInt(-1);
      if (offset < 0 || length < 0 || !hashes[i].is_string()) continue;
      media.push_back({modality, hashes[i].AsString(), prompt, static_cast<size_t>(offset),
                       static_cast<size_t>(length)});
    }
  }
}

}  // namespace llmd::sched
