#include "http/parser.h"

#include <array>
#include <cstring>
#include <string>

namespace llmd::http {
namespace {

constexpr size_t kMaxChunkLineBytes = 4096;
constexpr size_t kMaxTrailerBytes = 16 * 1024;
constexpr int kMaxChunkSizeDigits = 15;

constexpr std::array<bool, 256> MakeTokenTable() {
  std::array<bool, 256> table{};
  for (char c = '0'; c <= '9'; ++c) table[static_cast<uint8_t>(c)] = true;
  for (char c = 'a'; c <= 'z'; ++c) table[static_cast<uint8_t>(c)] = true;
  for (char c = 'A'; c <= 'Z'; ++c) table[static_cast<uint8_t>(c)] = true;
  for (char c : std::string_view("!#$%&'*+-.^_`|~")) table[static_cast<uint8_t>(c)] = true;
  return table;
}
constexpr std::array<bool, 256> kToken = MakeTokenTable();

bool IsTokenChar(char c) {
  return kToken[static_cast<uint8_t>(c)];
}

bool IsToken(std::string_view s) {
  for (char c : s) {
    if (!IsTokenChar(c)) return false;
  }
  return !s.empty();
}

// Field content: visible ASCII, blank, tab and bytes above 127.
bool IsValueChar(char c) {
  const auto u = static_cast<uint8_t>(c);
  return u == '\t' || (u >= 0x20 && u != 0x7f);
}

bool IsValue(std::string_view s) {
  for (char c : s) {
    if (!IsValueChar(c)) return false;
  }
  return true;
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

std::string_view TrimBlanks(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
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
struct Known {
  int hosts = 0, encodings = 0, lengths = 0;
  uint64_t length = 0;
  bool chunked = false, close = false, keep_alive = false;
  std::string_view expect;
};

void NoteConnection(std::string_view value, Known* known) {
  for (size_t comma = 0; comma != std::string_view::npos;) {
    comma = value.find(',');
    const std::string_view option = TrimBlanks(value.substr(0, comma));
    known->close |= EqualsIgnoreCase(option, "close");
    known->keep_alive |= EqualsIgnoreCase(option, "keep-alive");
    if (comma != std::string_view::npos) value.remove_prefix(comma + 1);
  }
}

WireError NoteLine(std::string_view name, std::string_view value, Known* known) {
  switch (name.size()) {
    case 4:
      if (!EqualsIgnoreCase(name, "host")) break;
      if (++known->hosts > 1) return {400, "more than one Host"};
      if (!IsAuthority(value)) return {400, "malformed Host"};
      break;
    case 6:
      if (EqualsIgnoreCase(name, "expect")) known->expect = value;
      break;
    case 10:
      if (EqualsIgnoreCase(name, "connection")) NoteConnection(value, known);
      break;
    case 14: {
      if (!EqualsIgnoreCase(name, "content-length")) break;
      uint64_t length = 0;
      if (!ParseLength(value, &length)) return {400, "malformed Content-Length"};
      if (known->lengths++ > 0 && length != known->length) return {400, "differing Content-Length"};
      known->length = length;
      break;
    }
    case 17:
      if (!EqualsIgnoreCase(name, "transfer-encoding")) break;
      if (++known->encodings > 1 || !EqualsIgnoreCase(value, "chunked")) {
        return {400, "unknown transfer coding"};
      }
      known->chunked = true;
      break;
    default:
      break;
  }
  return {};
}

WireError ParseLines(std::string_view rest, Headers* headers, Known* known) {
  while (true) {
    const std::string_view line = TakeLine(&rest);
    if (line.empty()) break;
    if (line.front() == ' ' || line.front() == '\t') return {400, "folded header line"};
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return {400, "header line without a colon"};
    const std::string_view name = line.substr(0, colon);
    if (!IsToken(name)) return {400, "malformed header name"};
    const std::string_view value = TrimBlanks(line.substr(colon + 1));
    if (!IsValue(value)) return {400, "control character in a header value"};
    if (WireError error = NoteLine(name, value, known); !error.ok()) return error;
    headers->Add(name, value);
  }
  if (known->chunked && known->lengths > 0) {
    return {400, "both Content-Length and Transfer-Encoding"};
  }
  // Equal repeats are harmless only when one of them is left for those who read the head after us.
  if (known->lengths > 1) headers->Set("Content-Length", std::to_string(known->length));
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
WireError TakeAbsoluteForm(std::string* target, std::string* authority) {
  const size_t scheme = target->find("://");
  if (scheme == std::string::npos) return {400, "malformed request target"};
  const std::string_view name = std::string_view(*target).substr(0, scheme);
  if (!EqualsIgnoreCase(name, "http") && !EqualsIgnoreCase(name, "https")) {
    return {400, "request target of an unknown scheme"};
  }
  const size_t path = std::min(target->find_first_of("/?", scheme + 3), target->size());
  *authority = target->substr(scheme + 3, path - scheme - 3);
  if (authority->empty() || !IsAuthority(*authority)) return {400, "malformed request target"};
  *target = target->substr(path);
  if (target->empty() || target->front() == '?') target->insert(0, "/");
  return {};
}

WireError ParseRequestLine(std::string_view line, RequestHead* head, std::string* authority) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return {400, "malformed request line"};
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  if (!IsToken(method) || method.size() > 32) return {400, "malformed method"};
  if (!IsTarget(target) || target.find('#') != std::string_view::npos) {
    return {400, "malformed request target"};
  }
  if (WireError error = ParseVersion(line.substr(last + 1), &head->version_minor); !error.ok()) {
    return error;
  }
  head->method = method;
  head->target = target;
  if (target.front() == '/' || (target == "*" && method == "OPTIONS")) return {};
  return TakeAbsoluteForm(&head->target, authority);
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
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

WireError ParseRequest(std::string_view bytes, ParsedRequest* out) {
  *out = {};
  std::string authority;
  Known known;
  const std::string_view line = TakeLine(&bytes);
  if (WireError e = ParseRequestLine(line, &out->head, &authority); !e.ok()) return e;
  if (WireError e = ParseLines(bytes, &out->head.headers, &known); !e.ok()) return e;
  const bool is_11 = out->head.version_minor == 1;
  if (is_11 && known.hosts == 0) return {400, "missing Host"};
  if (!authority.empty()) out->head.headers.Set("Host", authority);
  if (known.chunked && !is_11) return {400, "Transfer-Encoding in HTTP/1.0"};
  if (!known.expect.empty() && is_11) {
    if (!EqualsIgnoreCase(known.expect, "100-continue")) return {417, "unknown expectation"};
    out->expects_continue = true;
  }
  if (known.chunked) {
    out->framing.kind = Framing::Kind::kChunked;
  } else if (known.length > 0) {
    out->framing = {Framing::Kind::kLength, known.length};
  }
  out->keep_alive = !known.close && (is_11 || known.keep_alive);
  return {};
}

WireError ParseResponse(std::string_view bytes, bool to_head, ParsedResponse* out) {
  *out = {};
  Known known;
  const std::string_view line = TakeLine(&bytes);
  int minor = 1;
  if (line.size() < 12 || line[8] != ' ') return {502, "malformed status line"};
  if (WireError e = ParseVersion(line.substr(0, 8), &minor); !e.ok()) return e;
  uint64_t status = 0;
  if (!ParseLength(line.substr(9, 3), &status) || status < 100 || status > 599 ||
      (line.size() > 12 && line[12] != ' ') || !IsValue(line)) {
    return {502, "malformed status line"};
  }
  out->head.status = static_cast<int>(status);
  if (line.size() > 13) out->head.reason = line.substr(13);
  if (WireError e = ParseLines(bytes, &out->head.headers, &known); !e.ok()) return e;
  out->keep_alive = !known.close && (minor == 1 || known.keep_alive);
  if (to_head || status < 200 || status == 204 || status == 304) return {};
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

BodyDecoder::State BodyDecoder::Next(std::string_view input, size_t* framing,
                                     std::string_view* piece) {
  *framing = 0;
  *piece = {};
  switch (framing_.kind) {
    case Framing::Kind::kNone:
      return State::kEnd;
    case Framing::Kind::kChunked:
      return NextChunked(input, framing, piece);
    case Framing::Kind::kUntilClose:
      *piece = input;
      return input.empty() ? State::kMore : State::kPiece;
    case Framing::Kind::kLength:
      break;
  }
  if (left_ == 0) return State::kEnd;
  *piece = input.substr(0, left_);
  left_ -= piece->size();
  return piece->empty() ? State::kMore : State::kPiece;
}

BodyDecoder::State BodyDecoder::NextChunked(std::string_view input, size_t* framing,
                                            std::string_view* piece) {
  size_t at = 0;
  while (phase_ != Phase::kEnd && phase_ != Phase::kData && at < input.size()) {
    if (!Step(input[at++])) return State::kBad;
  }
  *framing = at;
  if (phase_ == Phase::kEnd) return State::kEnd;
  if (phase_ != Phase::kData || at == input.size()) return State::kMore;
  *piece = input.substr(at, left_);
  left_ -= piece->size();
  if (left_ == 0) phase_ = Phase::kDataCr;
  return State::kPiece;
}

bool BodyDecoder::Step(char c) {
  switch (phase_) {
    case Phase::kSize:
      return StepSize(c);
    case Phase::kBlankBeforeExtension:
    case Phase::kExtension:
      return StepExtension(c);
    case Phase::kSizeLf:
      phase_ = left_ > 0 ? Phase::kData : Phase::kTrailer;
      digits_ = 0;
      line_bytes_ = 0;
      return c == '\n';
    case Phase::kDataCr:
      phase_ = Phase::kDataLf;
      return c == '\r';
    case Phase::kDataLf:
      phase_ = Phase::kSize;
      return c == '\n';
    case Phase::kTrailer:
      return StepTrailer(c);
    case Phase::kTrailerLf:
      phase_ = line_bytes_ == 0 ? Phase::kEnd : Phase::kTrailer;
      line_bytes_ = 0;
      return c == '\n';
    case Phase::kData:
    case Phase::kEnd:
      break;
  }
  return false;
}

bool BodyDecoder::StepSize(char c) {
  if (const int digit = HexValue(c); digit >= 0) {
    left_ = left_ * 16 + static_cast<uint64_t>(digit);
    return ++digits_ <= kMaxChunkSizeDigits;
  }
  if (digits_ == 0) return false;
  if (c == '\r') {
    phase_ = Phase::kSizeLf;
  } else if (c == ';') {
    phase_ = Phase::kExtension;
  } else {
    phase_ = Phase::kBlankBeforeExtension;
    return c == ' ' || c == '\t';
  }
  return true;
}

bool BodyDecoder::StepExtension(char c) {
  if (++line_bytes_ > kMaxChunkLineBytes) return false;
  if (phase_ == Phase::kBlankBeforeExtension) {
    if (c == ';') phase_ = Phase::kExtension;
    return c == ';' || c == ' ' || c == '\t';
  }
  if (c == '\r') {
    phase_ = Phase::kSizeLf;
    return true;
  }
  return IsValueChar(c);
}

// Trailers are dropped; a line must start like a header line.
bool BodyDecoder::StepTrailer(char c) {
  if (++trailer_bytes_ > kMaxTrailerBytes) return false;
  if (c == '\r') {
    phase_ = Phase::kTrailerLf;
    return true;
  }
  return line_bytes_++ == 0 ? IsTokenChar(c) : IsValueChar(c);
}

}  // namespace llmd::http
