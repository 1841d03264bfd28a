#include "http/parser.h"

#include <algorithm>
#include <cstring>

#include "http/characters.h"
#include "http/list_member.h"
#include "llmd/http/connection_names.h"

namespace llmd::http {
namespace {

bool IsToken(std::string_view s) {
  bool all = !s.empty();
  for (const char c : s) all &= IsTokenChar(c);
  return all;
}

bool IsValue(std::string_view s) {
  return !HoldsControl(s) || std::all_of(s.begin(), s.end(), IsValueChar);
}

bool IsTarget(std::string_view s) {
  for (char c : s) {
    if (c <= 0x20 || c >= 0x7f) return false;
  }
  return !s.empty();
}

bool IsAuthority(std::string_view s) {
  for (char c : s) {
    if (c <= 0x20 || c >= 0x7f || std::strchr("/\\?#@,\"<>", c) != nullptr) return false;
  }
  return true;
}

// The next line without its CRLF; `rest` moves past it.
std::string_view TakeLine(std::string_view* rest) {
  const size_t end = rest->find("\r\n");
  const std::string_view line = rest->substr(0, end);
  rest->remove_prefix(end + 2);
  return line;
}

bool ParseLength(std::string_view text, uint64_t* out) {
  if (text.empty() || text.size() > 18) return false;
  uint64_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  *out = value;
  return true;
}

// The few lines that decide framing and connection, gathered while the lines are read.
struct Deciding {
  int hosts = 0, encodings = 0, lengths = 0;
  uint64_t length = 0;
  size_t connection_names = 0;
  bool chunked = false, close = false, keep_alive = false;
  std::string_view expect;
};

void NoteConnection(std::string_view value, Deciding* known) {
  ForEachListMember(value, [known](std::string_view option) {
    known->close |= EqualsIgnoreCase(option, "close");
    known->keep_alive |= EqualsIgnoreCase(option, "keep-alive");
  });
}

WireError NoteLength(std::string_view value, Deciding* known) {
  uint64_t length = 0;
  if (!ParseLength(value, &length)) return {400, "malformed Content-Length"};
  if (known->lengths++ > 0 && length != known->length) return {400, "differing Content-Length"};
  known->length = length;
  return {};
}

WireError NoteLine(const HeaderLine& line, Deciding* known) {
  switch (line.known) {
    case Known::kHost:
      if (++known->hosts > 1) return {400, "more than one Host"};
      if (!IsAuthority(line.value)) return {400, "malformed Host"};
      break;
    case Known::kExpect:
      known->expect = line.value;
      break;
    case Known::kConnection:
      NoteConnection(line.value, known);
      known->connection_names += ConnectionNames::CountIn(line.value);
      if (known->connection_names > ConnectionNames::kMax)
        return {400, "Connection names more than 16 lines"};
      break;
    case Known::kContentLength:
      return NoteLength(line.value, known);
    case Known::kTransferEncoding:
      if (++known->encodings > 1 || !EqualsIgnoreCase(line.value, "chunked")) {
        return {400, "unknown transfer coding"};
      }
      known->chunked = true;
      break;
    default:
      break;
  }
  return {};
}

WireError ParseLine(std::string_view line, HeaderLine* out) {
  if (line.front() == ' ' || line.front() == '\t') return {400, "folded header line"};
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return {400, "header line without a colon"};
  out->name = line.substr(0, colon);
  if (!IsToken(out->name)) return {400, "malformed header name"};
  out->value = TrimBlanks(line.substr(colon + 1));
  if (!IsValue(out->value)) return {400, "control character in a header value"};
  out->known = KnownHeader(out->name);
  return {};
}

WireError ParseLines(std::string_view rest, std::vector<HeaderLine>* lines, Deciding* known) {
  lines->clear();
  while (true) {
    const std::string_view text = TakeLine(&rest);
    if (text.empty()) break;
    HeaderLine line;
    if (WireError error = ParseLine(text, &line); !error.ok()) return error;
    if (WireError error = NoteLine(line, known); !error.ok()) return error;
    // Equal repeats are harmless only when one of them is left for those who read the head after
    // us.
    if (line.known != Known::kContentLength || known->lengths == 1) lines->push_back(line);
  }
  if (known->chunked && known->lengths > 0) {
    return {400, "both Content-Length and Transfer-Encoding"};
  }
  return {};
}

WireError ParseVersion(std::string_view text, int* minor) {
  const bool shaped = text.size() == 8 && text.starts_with("HTTP/") && text[6] == '.' &&
                      text[5] >= '0' && text[5] <= '9' && text[7] >= '0' && text[7] <= '9';
  if (!shaped) return {400, "malformed HTTP version"};
  if (text[5] != '1') return {505, "HTTP version is not 1.0 or 1.1"};
  *minor = text[7] == '0' ? 0 : 1;
  return {};
}

// Turns "http://host/path" into its origin form; the authority then stands for Host (RFC 9112
// §3.2.2).
WireError TakeAbsoluteForm(RequestHeadView* out, std::string_view* authority) {
  const std::string_view target = out->view.target;
  const size_t scheme = target.find("://");
  if (scheme == std::string_view::npos) return {400, "malformed request target"};
  const std::string_view name = target.substr(0, scheme);
  if (!EqualsIgnoreCase(name, "http") && !EqualsIgnoreCase(name, "https")) {
    return {400, "request target of an unknown scheme"};
  }
  const size_t path = std::min(target.find_first_of("/?", scheme + 3), target.size());
  *authority = target.substr(scheme + 3, path - scheme - 3);
  if (authority->empty() || !IsAuthority(*authority)) return {400, "malformed request target"};
  out->view.target = target.substr(path);
  if (out->view.target.starts_with('/')) return {};
  out->rewritten_target = "/";
  out->rewritten_target.append(out->view.target);
  out->view.target = out->rewritten_target;
  return {};
}

WireError ParseRequestLine(std::string_view line, RequestHeadView* out,
                           std::string_view* authority) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return {400, "malformed request line"};
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  if (!IsToken(method) || method.size() > 32) return {400, "malformed method"};
  if (!IsTarget(target) || target.find('#') != std::string_view::npos) {
    return {400, "malformed request target"};
  }
  if (WireError e = ParseVersion(line.substr(last + 1), &out->view.version_minor); !e.ok())
    return e;
  out->view.method = method;
  out->view.target = target;
  if (target.front() == '/' || (target == "*" && method == "OPTIONS")) return {};
  return TakeAbsoluteForm(out, authority);
}

void SetHost(std::string_view authority, std::vector<HeaderLine>* lines) {
  for (HeaderLine& line : *lines) {
    if (line.known == Known::kHost) {
      line.value = authority;
      return;
    }
  }
  lines->push_back({"Host", authority, Known::kHost});
}

WireError ParseStatusLine(std::string_view line, ResponseView* out, int* minor) {
  if (line.size() < 12 || line[8] != ' ') return {502, "malformed status line"};
  if (WireError e = ParseVersion(line.substr(0, 8), minor); !e.ok()) return e;
  uint64_t status = 0;
  if (!ParseLength(line.substr(9, 3), &status) || status < 100 || status > 599 ||
      (line.size() > 12 && line[12] != ' ') || !IsValue(line)) {
    return {502, "malformed status line"};
  }
  out->status = static_cast<int>(status);
  out->reason = line.size() > 13 ? line.substr(13) : std::string_view();
  return {};
}

void Copy(const HeaderLines& from, Headers* to) {
  for (const HeaderLine& line : from.lines) to->Add(line.name, line.value);
}

}  // namespace

bool HeadScanner::Fail(int status, std::string_view message) {
  error_ = {status, message};
  return false;
}

size_t HeadScanner::LeadingBlankLines(std::string_view bytes) {
  size_t n = 0;
  while (bytes.substr(n).starts_with("\r\n")) n += 2;
  return n;
}

bool HeadScanner::Feed(std::string_view bytes) {
  if (!bytes.empty() && !IsTokenChar(bytes.front())) return Fail(400, "not an HTTP message");
  while (true) {
    const size_t lf = bytes.find('\n', scanned_);
    if (lf == std::string_view::npos) break;
    if (lf >= limits_.max_bytes) return Fail(431, "header block too large");
    if (lf == 0 || bytes[lf - 1] != '\r') return Fail(400, "line ends without CR");
    scanned_ = lf + 1;
    if (lf - 1 == line_start_) {
      head_bytes_ = scanned_;
      return true;
    }
    line_start_ = scanned_;
    // The first line is the request or status line.
    if (++lines_ > limits_.max_lines + 1) return Fail(431, "too many header lines");
  }
  scanned_ = bytes.size();
  return bytes.size() >= limits_.max_bytes ? Fail(431, "header block too large") : false;
}

void RequestHeadView::Clear() {
  view = {};
  framing = {};
  keep_alive = true;
  expects_continue = false;
}

void ResponseHeadView::Clear() {
  view = {};
  framing = {};
  keep_alive = true;
}

WireError ReadRequestHead(std::string_view bytes, RequestHeadView* out) {
  out->Clear();
  std::string_view authority;
  Deciding known;
  const std::string_view line = TakeLine(&bytes);
  if (WireError e = ParseRequestLine(line, out, &authority); !e.ok()) return e;
  if (WireError e = ParseLines(bytes, &out->lines, &known); !e.ok()) return e;
  const bool is_11 = out->view.version_minor == 1;
  if (is_11 && known.hosts == 0) return {400, "missing Host"};
  if (!authority.empty()) SetHost(authority, &out->lines);
  out->view.headers.lines = out->lines;
  if (known.chunked && !is_11) return {400, "Transfer-Encoding in HTTP/1.0"};
  if (!known.expect.empty() && is_11) {
    if (!EqualsIgnoreCase(known.expect, "100-continue")) return {417, "unknown expectation"};
    out->expects_continue = true;
  }
  out->announces_body = known.chunked || known.lengths > 0;
  if (known.chunked) {
    out->framing.kind = Framing::Kind::kChunked;
  } else if (known.length > 0) {
    out->framing = {Framing::Kind::kLength, known.length};
  }
  out->keep_alive = !known.close && (is_11 || known.keep_alive);
  return {};
}

WireError ReadResponseHead(std::string_view bytes, bool to_head, ResponseHeadView* out) {
  out->Clear();
  Deciding known;
  int minor = 1;
  const std::string_view line = TakeLine(&bytes);
  if (WireError e = ParseStatusLine(line, &out->view, &minor); !e.ok()) return e;
  if (WireError e = ParseLines(bytes, &out->lines, &known); !e.ok()) return e;
  out->view.headers.lines = out->lines;
  out->keep_alive = !known.close && (minor == 1 || known.keep_alive);
  const int status = out->view.status;
  out->declares_length = known.lengths > 0;
  out->declared_length = known.length;
  out->bodyless = to_head || status < 200 || status == 204 || status == 304;
  if (out->bodyless) return {};
  if (known.chunked) {
    out->framing.kind = Framing::Kind::kChunked;
  } else if (known.lengths > 0) {
    if (known.length > 0) out->framing = {Framing::Kind::kLength, known.length};
  } else {
    out->framing.kind = Framing::Kind::kUntilClose;
    out->keep_alive = false;
  }
  return {};
}

WireError ParseRequest(std::string_view bytes, ParsedRequest* out) {
  *out = {};
  RequestHeadView read;
  if (WireError e = ReadRequestHead(bytes, &read); !e.ok()) return e;
  out->head.method = read.view.method;
  out->head.target = read.view.target;
  out->head.version_minor = read.view.version_minor;
  Copy(read.view.headers, &out->head.headers);
  out->framing = read.framing;
  out->keep_alive = read.keep_alive;
  out->expects_continue = read.expects_continue;
  return {};
}

WireError ParseResponse(std::string_view bytes, bool to_head, ParsedResponse* out) {
  *out = {};
  ResponseHeadView read;
  if (WireError e = ReadResponseHead(bytes, to_head, &read); !e.ok()) return e;
  out->head.status = read.view.status;
  out->head.reason = read.view.reason;
  Copy(read.view.headers, &out->head.headers);
  out->framing = read.framing;
  out->keep_alive = read.keep_alive;
  return {};
}

}  // namespace llmd::http
