#include <algorithm>

#include "epp/convert.h"
#include "llmd/proto_wire.h"

namespace llmd::epp {
namespace {

constexpr std::string_view kSubsetNamespace = "envoy.lb.subset_hint";
constexpr std::string_view kSubsetKey = "x-gateway-destination-endpoint-subset";
constexpr std::string_view kExcludeKey = "x-gateway-destination-endpoint-exclude";
constexpr std::string_view kLbNamespace = "envoy.lb";
constexpr std::string_view kServedKey = "x-gateway-destination-endpoint-served";
constexpr size_t kUsualHeaders = 24;

// ProcessingRequest's fields.
enum Field : uint32_t {
  kNone = 0,
  kRequestHeaders = 2,
  kResponseHeaders = 3,
  kRequestBody = 4,
  kResponseBody = 5,
  kRequestTrailers = 6,
  kResponseTrailers = 7,
  kMetadataContext = 8,
  kProtocolConfig = 11,
};

void AddTrimmed(std::string_view text, std::vector<std::string>& out) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return;
  out.emplace_back(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

void Split(std::string_view text, std::vector<std::string>& out) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    AddTrimmed(text.substr(0, comma), out);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
}

// The last field of that number with bytes; false when there is none.
bool Find(std::string_view message, uint32_t field, std::string_view* out) {
  bool found = false;
  for (WireFields f(message); f.Next();) {
    if (!f.Is(field)) continue;
    *out = f.bytes();
    found = true;
  }
  return found;
}

// The value of a map's entry (entries are fields `field` of `message`).
bool FindEntry(std::string_view message, uint32_t field, std::string_view key,
               std::string_view* out) {
  bool found = false;
  for (WireFields f(message); f.Next();) {
    std::string_view name, value;
    if (!f.Is(field) || !Find(f.bytes(), 1, &name) || name != key) continue;
    found = true;
    *out = Find(f.bytes(), 2, &value) ? value : std::string_view();
  }
  return found;
}

// The google.protobuf.Value under `key` in the metadata's namespace.
bool FindMetadata(std::string_view metadata, std::string_view space, std::string_view key,
                  std::string_view* value) {
  std::string_view fields;
  return FindEntry(metadata, 1, space, &fields) && FindEntry(fields, 1, key, value);
}

// A google.protobuf.Value: a list of strings, or one with commas.
void ReadEndpoints(std::string_view value, std::vector<std::string>& out) {
  for (WireFields f(value); f.Next();) {
    if (f.Is(3)) Split(f.bytes(), out);
    if (!f.Is(6)) continue;
    for (WireFields item(f.bytes()); item.Next();) {
      std::string_view text;
      if (item.Is(1) && Find(item.bytes(), 3, &text)) AddTrimmed(text, out);
    }
  }
}

// What one message says, in place.
struct Message {
  uint32_t field = kNone;
  std::string_view value;               // of headers and trailers
  std::vector<std::string_view> parts;  // of a body
  bool end_of_stream = false;
  bool has_metadata = false, has_config = false;
  std::string_view metadata, config;
  std::string value_scratch, metadata_scratch, config_scratch;

  void Clear() {
    field = kNone;
    value = metadata = config = {};
    parts.clear();
    end_of_stream = has_metadata = has_config = false;
  }
};

bool ReadBody(PieceFields& fields, Message& out) {
  out.parts.clear();
  out.end_of_stream = false;
  fields.Enter();
  while (fields.Next()) {
    if (fields.field() == 1 && fields.type() == WireType::kBytes) {
      out.parts.clear();
      while (fields.left() > 0) out.parts.push_back(fields.TakePart());
    } else if (fields.field() == 2 && fields.type() == WireType::kVarint) {
      out.end_of_stream = fields.number() != 0;
    }
  }
  fields.Leave();
  return fields.ok();
}

bool Read(std::span<const std::string_view> pieces, Message& out) {
  PieceFields fields(pieces);
  while (fields.Next()) {
    if (fields.type() != WireType::kBytes) continue;
    switch (fields.field()) {
      case kRequestBody:
      case kResponseBody:
        out.field = fields.field();
        if (!ReadBody(fields, out)) return false;
        break;
      case kRequestHeaders:
      case kResponseHeaders:
      case kRequestTrailers:
      case kResponseTrailers:
        out.field = fields.field();
        out.value = fields.TakeAll(out.value_scratch);
        break;
      case kMetadataContext:
        out.has_metadata = true;
        out.metadata = fields.TakeAll(out.metadata_scratch);
        break;
      case kProtocolConfig:
        out.has_config = true;
        out.config = fields.TakeAll(out.config_scratch);
        break;
      default:
        break;
    }
  }
  return fields.ok();
}

// HttpHeaders.
bool ReadHeaders(std::string_view message, HeaderList& out, bool* end_of_stream) {
  WireFields f(message);
  while (f.Next()) {
    if (f.Is(1) && !ReadHeaderMap(f.bytes(), out)) return false;
    if (f.IsNumber(3)) *end_of_stream = f.number() != 0;
  }
  return f.ok();
}

void FeedModes(std::string_view config, Processor& processor) {
  uint64_t request = 0, response = 0;
  for (WireFields f(config); f.Next();) {
    if (f.IsNumber(1)) request = f.number();
    if (f.IsNumber(2)) response = f.number();
  }
  processor.OnModes(static_cast<BodyMode>(request), static_cast<BodyMode>(response));
}

void FeedServed(std::string_view metadata, Processor& processor) {
  std::string_view space, value, served;
  if (!FindEntry(metadata, 1, kLbNamespace, &space)) return;
  if (FindEntry(space, 1, kServedKey, &value)) Find(value, 3, &served);
  processor.OnServed(served);
}

void FeedBody(const Message& message, Processor& processor, std::string& scratch) {
  if (message.field == kRequestBody) {
    for (size_t i = 0; i + 1 < message.parts.size(); ++i)
      processor.OnRequestBody(message.parts[i], false);
    const std::string_view last = message.parts.empty() ? std::string_view() : message.parts.back();
    return processor.OnRequestBody(last, message.end_of_stream);
  }
  if (message.parts.size() <= 1) {
    const std::string_view only = message.parts.empty() ? std::string_view() : message.parts[0];
    return processor.OnResponseBody(only, message.end_of_stream);
  }
  scratch.clear();
  for (std::string_view part : message.parts) scratch += part;
  processor.OnResponseBody(scratch, message.end_of_stream);
}

}  // namespace

bool ReadHeaderMap(std::string_view map, HeaderList& out) {
  out.reserve(kUsualHeaders);
  WireFields headers(map);
  while (headers.Next()) {
    if (!headers.Is(1)) continue;
    std::string_view name, value, raw_value;
    WireFields f(headers.bytes());
    while (f.Next()) {
      if (f.Is(1)) name = f.bytes();
      if (f.Is(2)) value = f.bytes();
      if (f.Is(3)) raw_value = f.bytes();
    }
    if (!f.ok()) return false;
    out.emplace_back(name, raw_value.empty() ? value : raw_value);
    for (char& c : out.back().first) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c + 32) : c;
  }
  return headers.ok();
}

SubsetHint ReadSubsetHint(std::string_view metadata) {
  SubsetHint hint;
  std::string_view value;
  hint.present = FindMetadata(metadata, kSubsetNamespace, kSubsetKey, &value);
  if (hint.present) ReadEndpoints(value, hint.endpoints);
  if (FindMetadata(metadata, kSubsetNamespace, kExcludeKey, &value))
    ReadEndpoints(value, hint.exclude);
  return hint;
}

bool Dispatch(std::span<const std::string_view> pieces, Processor& processor) {
  static thread_local Message message;
  message.Clear();
  if (!Read(pieces, message)) return false;
  const bool request_headers = message.field == kRequestHeaders;
  HeaderList headers;
  if ((request_headers || message.field == kResponseHeaders) &&
      !ReadHeaders(message.value, headers, &message.end_of_stream)) {
    return false;
  }
  if (message.has_config) FeedModes(message.config, processor);
  if (message.has_metadata) processor.OnSubsetHint(ReadSubsetHint(message.metadata));
  switch (message.field) {
    case kRequestHeaders:
      processor.OnRequestHeaders(std::move(headers), message.end_of_stream);
      break;
    case kResponseHeaders:
      if (message.has_metadata) FeedServed(message.metadata, processor);
      processor.OnResponseHeaders(headers, message.end_of_stream);
      break;
    case kRequestBody:
    case kResponseBody:
      FeedBody(message, processor, message.value_scratch);
      break;
    case kRequestTrailers:
      processor.OnRequestTrailers();
      break;
    case kResponseTrailers:
      processor.OnResponseTrailers();
      break;
    default:
      processor.OnUnknown();
  }
  return true;
}

}  // namespace llmd::epp
