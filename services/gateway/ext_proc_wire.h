// ext_proc as the gateway speaks it (docs/wire/ext-proc.md): the messages of one request, written
// to bytes once, and what the picker answers, read in place. Field numbers are those of
// services/proto. Plain functions, no gRPC.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/wire_writer.h"
#include "llmd/http/head_view.h"
#include "llmd/proto_wire.h"

namespace llmd::gateway {

// Of a request, as the picker is told.
struct AskedRequest {
  const http::RequestView* head = nullptr;
  bool tls = false;
  bool has_body = false;
  // Sent as x-request-id in place of the client's; "" = the client's stands.
  std::string_view request_id;
  std::string_view traceparent;  // the same
  // Endpoints ("ip:port") that are not to be picked, and those that may be instead: empty = the
  // picker knows. Pickers that do not know the exclusion see the subset.
  std::span<const std::string> exclude, subset;
};

// Each writes one ProcessingRequest to a writer that is empty.
// request_headers, with the modes of the bodies: the request's FULL_DUPLEX_STREAMED, the answer's
// STREAMED. Routing headers of the client and lines of its connection are left out.
void WriteRequestHead(const AskedRequest& request, services::WireWriter& out);
// The bytes before a piece of `bytes`, which follow as they are.
void WriteRequestPiece(size_t bytes, bool end, services::WireWriter& out);
// response_headers; `served` is the "ip:port" that answered.
void WriteResponseHead(const http::ResponseView& head, std::string_view served, bool end,
                       services::WireWriter& out);
void WriteResponsePiece(size_t bytes, bool end, services::WireWriter& out);

// One ProcessingResponse; views into it.
struct PickerAnswer {
  enum class Kind : uint8_t {
    kOther,  // trailers, or nothing that is known here
    kRequestHeaders,
    kResponseHeaders,
    kRequestBody,
    kResponseBody,
    kImmediate,
  };
  // What a body's answer says of the bytes it answers.
  enum class Change : uint8_t {
    kNone,      // they pass as they are
    kReplaced,  // `body` in their place
    kStreamed,  // `body` comes next, whatever was sent; the picker may hold bytes back
  };
  Kind kind = Kind::kOther;
  Change change = Change::kNone;
  bool end_of_stream = false;      // of kStreamed
  bool leaves_body_alone = false;  // of response headers: the body is not to be sent
  int status = 0;                  // of kImmediate
  std::string_view body;           // of a body or of kImmediate
  std::string_view mutation;       // HeaderMutation: see EachSetHeader
  std::string_view metadata;       // dynamic_metadata: see ReadDestination
};
// False when it is malformed.
bool ReadAnswer(std::string_view message, PickerAnswer& out);

// The value (a google.protobuf.Value or Struct) under `key` in a Struct's or map's fields, "" =
// none.
std::string_view FindStructField(std::string_view fields, std::string_view key);
// "ip:port,ip:port" of the metadata, "" = none; for pickers that set no header.
std::string_view ReadDestination(std::string_view metadata);

// Headers that the mutation sets, in order: `each`(name, value).
template <typename Each>
void EachSetHeader(std::string_view mutation, Each each) {
  for (WireFields options(mutation); options.Next();) {
    if (!options.Is(1)) continue;
    std::string_view name, value, raw_value;
    for (WireFields option(options.bytes()); option.Next();) {
      if (!option.Is(1)) continue;
      for (WireFields header(option.bytes()); header.Next();) {
        if (header.Is(1)) name = header.bytes();
        if (header.Is(2)) value = header.bytes();
        if (header.Is(3)) raw_value = header.bytes();
      }
    }
    if (!name.empty()) each(name, raw_value.empty() ? value : raw_value);
  }
}
template <typename Each>
void EachRemovedHeader(std::string_view mutation, Each each) {
  for (WireFields fields(mutation); fields.Next();) {
    if (fields.Is(2) && !fields.bytes().empty()) each(fields.bytes());
  }
}
// The endpoints whose scores the metadata tells, as --emit-endpoint-scores writes them:
// `each`("ip:port").
std::string_view ScoresOf(std::string_view metadata);
template <typename Each>
void EachScored(std::string_view metadata, Each each) {
  for (WireFields scores(ScoresOf(metadata)); scores.Next();) {
    if (!scores.Is(1)) continue;
    for (WireFields entry(scores.bytes()); entry.Next();) {
      if (entry.Is(1)) each(entry.bytes());
    }
  }
}

}  // namespace llmd::gateway
