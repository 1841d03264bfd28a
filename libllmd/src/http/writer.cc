#include "http/writer.h"

#include <algorithm>
#include <charconv>
#include <ctime>

#include "http/characters.h"
#include "llmd/http/error_body.h"

namespace llmd::http {

void AppendClean(std::string_view text, std::string* out) {
  const size_t start = out->size();
  out->append(text);
  if (!HoldsControl(text)) return;
  const auto splits = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
  std::replace_if(out->begin() + static_cast<ptrdiff_t>(start), out->end(), splits, ' ');
}

void AppendLine(std::string_view name, std::string_view value, std::string* out) {
  char line[256];
  const size_t size = name.size() + value.size() + 4;
  if (size > sizeof line || HoldsControl(name) || HoldsControl(value)) {
    AppendClean(name, out);
    out->append(": ");
    AppendClean(value, out);
    out->append("\r\n");
    return;
  }
  char* at = std::copy(name.begin(), name.end(), line);
  *at++ = ':';
  *at++ = ' ';
  at = std::copy(value.begin(), value.end(), at);
  *at++ = '\r';
  *at++ = '\n';
  out->append(line, size);
}

bool IsFramingLine(Known name) {
  return name == Known::kConnection || name == Known::kContentLength ||
         name == Known::kTransferEncoding;
}

// Formatted once a second and thread.
std::string_view DateLine() {
  thread_local std::time_t stamp = 0;
  thread_local char text[48] = "";
  if (const std::time_t now = std::time(nullptr); now != stamp) {
    std::tm utc;
    gmtime_r(&now, &utc);
    std::strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
    stamp = now;
  }
  return text;
}

void AppendBodyLines(const ResponseFraming& framing, std::string* out) {
  using Body = ResponseFraming::Body;
  using Persist = ResponseFraming::Persist;
  if (framing.body == Body::kLength) {
    char digits[20];
    const char* end = std::to_chars(digits, digits + sizeof digits, framing.length).ptr;
    AppendLine("Content-Length", {digits, static_cast<size_t>(end - digits)}, out);
  }
  if (framing.body == Body::kChunked) out->append("Transfer-Encoding: chunked\r\n");
  if (framing.persist == Persist::kClose) out->append("Connection: close\r\n");
  if (framing.persist == Persist::kKeepAlive) out->append("Connection: keep-alive\r\n");
}

std::string_view ChunkHead(size_t bytes, char (&buffer)[24]) {
  char* end = std::to_chars(buffer, buffer + 20, bytes, 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  return {buffer, static_cast<size_t>(end - buffer)};
}

std::string WriteResponseHead(const ResponseHead& head, const ResponseFraming& framing) {
  std::string out;
  out.reserve(192 + head.headers.lines().size() * 48);
  out.append("HTTP/1.1 ").append(std::to_string(head.status)).append(" ");
  AppendClean(head.reason.empty() ? ReasonPhrase(head.status) : std::string_view(head.reason),
              &out);
  out.append("\r\n");
  bool has_date = false;
  for (const auto& [name, value] : head.headers.lines()) {
    if (IsFramingLine(KnownHeader(name))) continue;
    has_date |= name.size() == 4 && EqualsIgnoreCase(name, "date");
    AppendLine(name, value, &out);
  }
  if (!has_date) out.append(DateLine());
  AppendBodyLines(framing, &out);
  return out.append("\r\n");
}

std::string WriteRequestHead(const RequestHead& head, std::string_view host, size_t body_bytes) {
  std::string out;
  out.reserve(128 + head.target.size() + head.headers.lines().size() * 48);
  AppendClean(head.method, &out);
  out.append(" ");
  AppendClean(head.target.empty() ? "/" : std::string_view(head.target), &out);
  out.append(" HTTP/1.1\r\n");
  if (!head.headers.Has("Host")) AppendLine("Host", host, &out);
  for (const auto& [name, value] : head.headers.lines()) {
    if (!IsFramingLine(KnownHeader(name))) AppendLine(name, value, &out);
  }
  const bool takes_body = head.method == "POST" || head.method == "PUT" || head.method == "PATCH";
  if (body_bytes > 0 || takes_body) AppendLine("Content-Length", std::to_string(body_bytes), &out);
  return out.append("\r\n");
}

Response ErrorResponse(int status, std::string_view message) {
  Response response;
  response.head.status = status;
  response.head.headers.Add("Content-Type", "application/json");
  response.body = ErrorBody(status, message);
  return response;
}

}  // namespace llmd::http
