#include "llmd/http/head_view.h"

#include <algorithm>
#include <initializer_list>

#include "llmd/http/message.h"
#include "llmd/http/routing_headers.h"

namespace llmd::http {
namespace {

struct Spelling {
  std::string_view text;
  Known known;
};

// All are as long as the name.
Known OneOf(std::string_view name, std::initializer_list<Spelling> spellings) {
  for (const Spelling& each : spellings) {
    if (EqualsIgnoreCase(name, each.text)) return each.known;
  }
  return Known::kOther;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The character at `at`, an escape undone; moves behind it.
char TakeCharacter(std::string_view path, size_t* at) {
  const char c = path[(*at)++];
  if (c != '%' || *at + 2 > path.size()) return c;
  const int high = HexDigit(path[*at]), low = HexDigit(path[*at + 1]);
  if (high < 0 || low < 0) return c;
  *at += 2;
  return static_cast<char>(high * 16 + low);
}

// Whether an escape undone begins another one, or one of the overlong forms of an ASCII character
// that UTF-8 forbids.
bool StartsEscape(char c, std::string_view rest) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte == 0xC0 || byte == 0xC1) return true;
  return c == '%' && rest.size() >= 2 && HexDigit(rest[0]) >= 0 && HexDigit(rest[1]) >= 0;
}

// One segment without its slashes.
bool IsPlainSegment(std::string_view segment) {
  size_t dots = 0;
  bool only_dots = true, parameters = false;
  for (size_t at = 0; at < segment.size();) {
    const bool escaped = segment[at] == '%';
    const char c = TakeCharacter(segment, &at);
    if (c == '\\' || c == '\0' || (escaped && (c == '/' || StartsEscape(c, segment.substr(at)))))
      return false;
    parameters |= c == ';';
    if (parameters) continue;
    only_dots &= c == '.';
    ++dots;
  }
  return !only_dots || dots == 0 || dots > 2;
}

}  // namespace

Known KnownHeader(std::string_view name) {
  switch (name.size()) {
    case 2:
      return OneOf(name, {{"te", Known::kTe}});
    case 4:
      return OneOf(name, {{"host", Known::kHost}, {"date", Known::kDate}});
    case 6:
      return OneOf(name, {{"expect", Known::kExpect}});
    case 7:
      return OneOf(name, {{"upgrade", Known::kUpgrade}, {"trailer", Known::kTrailer}});
    case 10:
      return OneOf(name, {{"connection", Known::kConnection}, {"keep-alive", Known::kKeepAlive}});
    case 11:
      return OneOf(name, {{"retry-after", Known::kRetryAfter}});
    case 12:
      return OneOf(name,
                   {{"content-type", Known::kContentType}, {"x-request-id", Known::kXRequestId}});
    case 13:
      return OneOf(name, {{"authorization", Known::kAuthorization}});
    case 14:
      return OneOf(name, {{"content-length", Known::kContentLength}});
    case 15:
      return OneOf(name, {{"accept-encoding", Known::kAcceptEncoding},
                          {"x-forwarded-for", Known::kXForwardedFor}});
    case 16:
      return OneOf(name, {{"content-encoding", Known::kContentEncoding},
                          {"x-forwarded-host", Known::kXForwardedHost},
                          {"proxy-connection", Known::kProxyConnection}});
    case 17:
      return OneOf(name, {{"transfer-encoding", Known::kTransferEncoding},
                          {"x-forwarded-proto", Known::kXForwardedProto}});
    case 18:
      return OneOf(name, {{"proxy-authenticate", Known::kProxyAuthenticate}});
    case 19:
      return OneOf(name, {{"proxy-authorization", Known::kProxyAuthorization}});
    default:
      return Known::kOther;
  }
}

bool IsHopByHop(Known name) {
  switch (name) {
    case Known::kConnection:
    case Known::kProxyConnection:
    case Known::kKeepAlive:
    case Known::kProxyAuthenticate:
    case Known::kProxyAuthorization:
    case Known::kTe:
    case Known::kTrailer:
    case Known::kTransferEncoding:
    case Known::kUpgrade:
      return true;
    default:
      return false;
  }
}

bool IsRoutingHeader(std::string_view name) {
  return name.size() > 2 && (name[0] == 'x' || name[0] == 'X') &&
         std::any_of(kRoutingHeaders.begin(), kRoutingHeaders.end(),
                     [name](std::string_view each) { return EqualsIgnoreCase(each, name); });
}

std::optional<std::string_view> HeaderLines::Get(Known name) const {
  for (const HeaderLine& line : lines) {
    if (line.known == name) return line.value;
  }
  return std::nullopt;
}

std::optional<std::string_view> HeaderLines::Get(std::string_view name) const {
  for (const HeaderLine& line : lines) {
    if (EqualsIgnoreCase(line.name, name)) return line.value;
  }
  return std::nullopt;
}

std::string_view RequestView::query() const {
  const size_t mark = target.find('?');
  return mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
}

bool IsPlainPath(std::string_view path) {
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    if (!IsPlainSegment(path.substr(0, slash))) return false;
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return true;
}

}  // namespace llmd::http
