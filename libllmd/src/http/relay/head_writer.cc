#include "http/relay/head_writer.h"

#include <algorithm>
#include <charconv>

#include "llmd/http/connection_names.h"

namespace llmd::relay {
namespace {

using http::HeaderLine;
using http::Known;

bool IsEdited(const HeaderLine& line, std::span<const HeaderEdit> edits) {
  return std::any_of(edits.begin(), edits.end(), [&](const HeaderEdit& edit) {
    return edit.name.size() == line.name.size() && http::EqualsIgnoreCase(edit.name, line.name);
  });
}

void AppendEdits(std::span<const HeaderEdit> edits, std::string* out) {
  for (const HeaderEdit& edit : edits) {
    if (edit.remove || http::IsFramingLine(http::KnownHeader(edit.name))) continue;
    http::AppendLine(edit.name, edit.value, out);
  }
}

void AppendNumber(std::string_view before, uint64_t number, std::string* out) {
  char digits[20];
  const char* end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out->append(before).append(std::string_view(digits, static_cast<size_t>(end - digits)));
  out->append("\r\n");
}

std::string_view HostOf(std::string_view peer) {
  std::string_view host = peer.substr(0, peer.rfind(':'));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return host;
}

void AppendForwarded(const http::RequestView& client, ForwardedFrom from, std::string* out) {
  out->append("X-Forwarded-For: ");
  for (const HeaderLine& line : client.headers.lines) {
    if (line.known != Known::kXForwardedFor || line.value.empty()) continue;
    http::AppendClean(line.value, out);
    out->append(", ");
  }
  out->append(HostOf(from.peer)).append("\r\nX-Forwarded-Proto: ");
  out->append(from.tls ? "https\r\n" : "http\r\n");
  if (const auto host = client.headers.Get(Known::kHost))
    http::AppendLine("X-Forwarded-Host", *host, out);
}

bool IsClientLinePassed(const http::ConnectionNames& names, const HeaderLine& line) {
  switch (line.known) {
    case Known::kContentLength:  // the body goes on whole: its length is declared anew
    case Known::kExpect:
    case Known::kXForwardedFor:
    case Known::kXForwardedHost:
    case Known::kXForwardedProto:
      return false;
    case Known::kHost:
      return true;
    default:
      return !http::IsHopByHop(line.known) && !names.Contain(line.name);
  }
}

bool TakesBody(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

}  // namespace

void WriteLegHead(const SendOptions& options, const http::RequestView* client, ForwardedFrom from,
                  bool has_body, uint64_t body_bytes, std::string* out) {
  out->clear();
  const std::string_view method = !options.method.empty() ? options.method
                                  : client != nullptr     ? client->method
                                                          : "GET";
  http::AppendClean(method, out);
  out->append(" ");
  http::AppendClean(!options.path.empty() ? options.path
                    : client != nullptr   ? client->target
                                          : "/",
                    out);
  out->append(" HTTP/1.1\r\n");
  const http::RequestView* lines = options.own_headers ? nullptr : client;
  const HeaderLine host{"host", "", Known::kHost};
  const bool passes_host = lines != nullptr && lines->headers.Has(Known::kHost);
  if (!passes_host && !IsEdited(host, options.headers))
    out->append("Host: ").append(options.target.ToString()).append("\r\n");
  if (lines != nullptr) {
    const http::ConnectionNames names(lines->headers);
    for (const HeaderLine& line : lines->headers.lines) {
      if (IsClientLinePassed(names, line) && !IsEdited(line, options.headers))
        http::AppendLine(line.name, line.value, out);
    }
    AppendForwarded(*lines, from, out);
  }
  AppendEdits(options.headers, out);
  if (has_body || body_bytes > 0 || TakesBody(method))
    AppendNumber("Content-Length: ", body_bytes, out);
  out->append("\r\n");
}

void WriteAnswerHead(const http::ResponseView& upstream, std::span<const HeaderEdit> edits,
                     const http::ResponseFraming& framing, std::string* out) {
  out->clear();
  out->append("HTTP/1.1 ");
  char digits[4];
  const char* end = std::to_chars(digits, digits + sizeof digits, upstream.status).ptr;
  out->append(std::string_view(digits, static_cast<size_t>(end - digits))).append(" ");
  http::AppendClean(upstream.reason.empty() ? http::ReasonPhrase(upstream.status) : upstream.reason,
                    out);
  out->append("\r\n");
  bool has_date = false;
  const http::ConnectionNames names(upstream.headers);
  for (const HeaderLine& line : upstream.headers.lines) {
    if (http::IsHopByHop(line.known) || http::IsFramingLine(line.known) || IsEdited(line, edits) ||
        names.Contain(line.name)) {
      continue;
    }
    has_date |= line.known == Known::kDate;
    http::AppendLine(line.name, line.value, out);
  }
  AppendEdits(edits, out);
  if (!has_date) out->append(http::DateLine());
  http::AppendBodyLines(framing, out);
  out->append("\r\n");
}

void WriteOwnHead(int status, std::span<const HeaderEdit> headers,
                  const http::ResponseFraming& framing, std::string* out) {
  http::ResponseView none;
  none.status = status;
  WriteAnswerHead(none, headers, framing, out);
}

}  // namespace llmd::relay
