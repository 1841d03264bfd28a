// The heads that the relay sends: the other side's lines less what concerns one connection only,
// with the policy's edits. Each is written once, into one string.
#pragma once

#include <string>
#include <string_view>

#include "http/parser.h"
#include "http/writer.h"
#include "llmd/http/relay/call.h"

namespace llmd::relay {

struct ForwardedFrom {
  std::string_view peer;  // "ip:port" of the client; "" = none
  bool tls = false;
};
// `client` null = there is none, or its lines are not wanted.
void WriteLegHead(const SendOptions& options, const http::RequestView* client, ForwardedFrom from,
                  bool has_body, uint64_t body_bytes, std::string* out);
void WriteAnswerHead(const http::ResponseView& upstream, std::span<const HeaderEdit> edits,
                     const http::ResponseFraming& framing, std::string* out);
void WriteOwnHead(int status, std::span<const HeaderEdit> headers,
                  const http::ResponseFraming& framing, std::string* out);

}  // namespace llmd::relay
