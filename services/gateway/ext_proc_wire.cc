#include "gateway/ext_proc_wire.h"

#include <algorithm>

#include "llmd/format.h"
#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

using http::Known;
using services::WireWriter;

constexpr std::string_view kLbNamespace = "envoy.lb";
constexpr std::string_view kSubsetNamespace = "envoy.lb.subset_hint";
constexpr std::string_view kSubsetKey = "x-gateway-destination-endpoint-subset";
constexpr std::string_view kExcludeKey = "x-gateway-destination-endpoint-exclude";
constexpr std::string_view kServedKey = "x-gateway-destination-endpoint-served";
constexpr std::string_view kScoresKey = "x-gateway-destination-endpoint-scores";
constexpr std::string_view kDestinationKey = "x-gateway-destination-endpoint";
constexpr uint64_t kStreamed = 1, kFullDuplex = 4;  // ProcessingMode.BodySendMode

// ProcessingRequest's fields.
enum Field : uint32_t {
  kRequestHeaders = 2,
  kResponseHeaders = 3,
  kRequestBody = 4,
  kResponseBody = 5,
  kMetadataContext = 8,
  kProtocolConfig = 11,
};

constexpr std::string_view kTraceparent = "traceparent";

bool ForPicker(const http::HeaderLine& line, bool own_id) {
  switch (line.known) {
    case Known::kOther:
      return !http::IsRoutingHeader(line.name);
    case Known::kHost:
    case Known::kContentLength:
    case Known::kExpect:
      return false;
    case Known::kXRequestId:
      return !own_id;
    default:
      return !http::IsHopByHop(line.known);
  }
}

// Every function writes its fields last one first: the writer goes backwards.

void WriteHeader(std::string_view name, std::string_view value, WireWriter& out) {
  const size_t header = out.size();
  out.Bytes(3, value);
  out.Lower(1, name);
  out.Wrap(1, header);
}

// Makes what was written since `mark`, a google.protobuf.Value, the entry `key` of a Struct.
void EndEntry(std::string_view key, size_t mark, WireWriter& out) {
  out.Wrap(2, mark);
  out.Bytes(1, key);
  out.Wrap(1, mark);
}

void WriteList(std::string_view key, std::span<const std::string> items, WireWriter& out) {
  const size_t entry = out.size();
  for (size_t i = items.size(); i-- > 0;) {
    const size_t item = out.size();
    out.Bytes(3, items[i]);
    out.Wrap(1, item);
  }
  out.Wrap(6, entry);  // list_value
  EndEntry(key, entry, out);
}

// metadata_context with one namespace: what was written since `mark`, a Struct's entries.
void EndMetadata(std::string_view space, size_t mark, WireWriter& out) {
  EndEntry(space, mark, out);
  out.Wrap(kMetadataContext, mark);
}

void WriteModes(WireWriter& out) {
  const size_t config = out.size();
  out.Number(3, 1);  // send_body_without_waiting_for_header_response
  out.Number(2, kStreamed);
  out.Number(1, kFullDuplex);
  out.Wrap(kProtocolConfig, config);
}

void WritePiece(uint32_t field, size_t bytes, bool end, WireWriter& out) {
  out.Tail(bytes);
  if (bytes > 0) out.Wrap(1, 0);
  if (end) out.Number(2, 1);
  out.Wrap(field, 0);
}

void ReadBodyMutation(std::string_view mutation, PickerAnswer& out) {
  for (WireFields f(mutation); f.Next();) {
    if (f.Is(1)) {
      out.change = PickerAnswer::Change::kReplaced;
      out.body = f.bytes();
    } else if (f.IsNumber(2) && f.number() != 0) {
      out.change = PickerAnswer::Change::kReplaced;
      out.body = {};
    } else if (f.Is(3)) {
      out.change = PickerAnswer::Change::kStreamed;
      for (WireFields piece(f.bytes()); piece.Next();) {
        if (piece.Is(1)) out.body = piece.bytes();
        if (piece.IsNumber(2)) out.end_of_stream = piece.number() != 0;
      }
    }
  }
}

// HeadersResponse or BodyResponse.
bool ReadCommon(std::string_view message, PickerAnswer& out) {
  WireFields response(message);
  while (response.Next()) {
    if (!response.Is(1)) continue;
    WireFields common(response.bytes());
    while (common.Next()) {
      if (common.Is(2)) out.mutation = common.bytes();
      if (common.Is(3)) ReadBodyMutation(common.bytes(), out);
    }
    if (!common.ok()) return false;
  }
  return response.ok();
}

bool ReadImmediate(std::string_view message, PickerAnswer& out) {
  out.status = 200;
  WireFields f(message);
  while (f.Next()) {
    if (f.Is(2)) out.mutation = f.bytes();
    if (f.Is(3)) out.body = f.bytes();
    if (!f.Is(1)) continue;
    for (WireFields status(f.bytes()); status.Next();) {
      if (status.IsNumber(1))
        out.status = static_cast<int>(std::min<uint64_t>(status.number(), 999));
    }
  }
  return f.ok();
}

// mode_override: proto3 leaves NONE out.
bool LeavesBodyAlone(std::string_view mode) {
  uint64_t response_body = 0;
  for (WireFields f(mode); f.Next();) {
    if (f.IsNumber(4)) response_body = f.number();
  }
  return response_body == 0;
}

// The fields of the struct that the google.protobuf.Value holds.
std::string_view AsStruct(std::string_view value) {
  for (WireFields f(value); f.Next();) {
    if (f.Is(5)) return f.bytes();
  }
  return {};
}

}  // namespace

void WriteRequestHead(const AskedRequest& request, WireWriter& out) {
  WriteModes(out);
  if (!request.exclude.empty() || !request.subset.empty()) {
    const size_t metadata = out.size();
    if (!request.exclude.empty()) WriteList(kExcludeKey, request.exclude, out);
    if (!request.subset.empty()) WriteList(kSubsetKey, request.subset, out);
    EndMetadata(kSubsetNamespace, metadata, out);
  }
  const size_t message = out.size();
  if (!request.has_body) out.Number(3, 1);
  const size_t map = out.size();
  const http::RequestView& head = *request.head;
  const bool own_id = !request.request_id.empty();
  if (own_id) WriteHeader("x-request-id", request.request_id, out);
  const bool own_trace = !request.traceparent.empty();
  if (own_trace) WriteHeader(kTraceparent, request.traceparent, out);
  for (size_t i = head.headers.lines.size(); i-- > 0;) {
    const http::HeaderLine& line = head.headers.lines[i];
    if (own_trace && EqualsIgnoreCase(line.name, kTraceparent)) continue;
    if (ForPicker(line, own_id)) WriteHeader(line.name, line.value, out);
  }
  WriteHeader(":authority", head.headers.Get(Known::kHost).value_or(""), out);
  WriteHeader(":scheme", request.tls ? "https" : "http", out);
  WriteHeader(":path", head.target, out);
  WriteHeader(":method", head.method, out);
  out.Wrap(1, map);
  out.Wrap(kRequestHeaders, message);
}

void WriteRequestPiece(size_t bytes, bool end, WireWriter& out) {
  WritePiece(kRequestBody, bytes, end, out);
}

void WriteResponsePiece(size_t bytes, bool end, WireWriter& out) {
  WritePiece(kResponseBody, bytes, end, out);
}

void WriteResponseHead(const http::ResponseView& head, std::string_view served, bool end,
                       WireWriter& out) {
  if (!served.empty()) {
    const size_t entry = out.size();
    out.Bytes(3, served);
    EndEntry(kServedKey, entry, out);
    EndMetadata(kLbNamespace, entry, out);
  }
  const size_t message = out.size();
  if (end) out.Number(3, 1);
  const size_t map = out.size();
  for (size_t i = head.headers.lines.size(); i-- > 0;) {
    const http::HeaderLine& line = head.headers.lines[i];
    if (!http::IsHopByHop(line.known)) WriteHeader(line.name, line.value, out);
  }
  char digits[3] = {static_cast<char>('0' + head.status / 100 % 10),
                    static_cast<char>('0' + head.status / 10 % 10),
                    static_cast<char>('0' + head.status % 10)};
  WriteHeader(":status", std::string_view(digits, sizeof digits), out);
  out.Wrap(1, map);
  out.Wrap(kResponseHeaders, message);
}

bool ReadAnswer(std::string_view message, PickerAnswer& out) {
  using Kind = PickerAnswer::Kind;
  out = {};
  WireFields f(message);
  bool ok = true;
  while (ok && f.Next()) {
    if (f.type() != WireType::kBytes) continue;
    switch (f.field()) {
      case 1:
      case 2:
        out.kind = f.field() == 1 ? Kind::kRequestHeaders : Kind::kResponseHeaders;
        ok = ReadCommon(f.bytes(), out);
        break;
      case 3:
      case 4:
        out.kind = f.field() == 3 ? Kind::kRequestBody : Kind::kResponseBody;
        ok = ReadCommon(f.bytes(), out);
        break;
      case 7:
        out.kind = Kind::kImmediate;
        ok = ReadImmediate(f.bytes(), out);
        break;
      case 8:
        out.metadata = f.bytes();
        break;
      case 9:
        out.leaves_body_alone = LeavesBodyAlone(f.bytes());
        break;
      default:
        break;
    }
  }
  return ok && f.ok();
}

std::string_view FindStructField(std::string_view fields, std::string_view key) {
  std::string_view found;
  for (WireFields f(fields); f.Next();) {
    if (!f.Is(1)) continue;
    std::string_view name, value;
    for (WireFields entry(f.bytes()); entry.Next();) {
      if (entry.Is(1)) name = entry.bytes();
      if (entry.Is(2)) value = entry.bytes();
    }
    if (name == key) found = value;
  }
  return found;
}

std::string_view ScoresOf(std::string_view metadata) {
  return AsStruct(FindStructField(AsStruct(FindStructField(metadata, kLbNamespace)), kScoresKey));
}

std::string_view ReadDestination(std::string_view metadata) {
  const std::string_view fields = AsStruct(FindStructField(metadata, kLbNamespace));
  for (WireFields f(FindStructField(fields, kDestinationKey)); f.Next();) {
    if (f.Is(3)) return f.bytes();
  }
  return {};
}

}  // namespace llmd::gateway
