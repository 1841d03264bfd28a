// Message heads as views into the bytes they came in: nothing is copied. The names that a server or
// a proxy acts on are known by number. Plain values, no I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace llmd::http {

// Header names that somebody acts on; all others are kOther.
enum class Known : uint8_t {
  kOther,
  kAcceptEncoding,
  kAuthorization,
  kConnection,
  kContentEncoding,
  kContentLength,
  kContentType,
  kDate,
  kExpect,
  kHost,
  kKeepAlive,
  kProxyAuthenticate,
  kProxyAuthorization,
  kProxyConnection,
  kRetryAfter,
  kTe,
  kTrailer,
  kTransferEncoding,
  kUpgrade,
  kXForwardedFor,
  kXForwardedHost,
  kXForwardedProto,
  kXRequestId,
};
// Without regard to case.
Known KnownHeader(std::string_view name);
// Lines that concern one connection only: RFC 9110 §7.6.1's list and the members of RFC 2616's, as
// Go's reverse proxy removes them. Those that Connection names come on top.
bool IsHopByHop(Known name);

struct HeaderLine {
  std::string_view name, value;
  Known known = Known::kOther;
};

// Lines in the order of the wire.
struct HeaderLines {
  std::span<const HeaderLine> lines;
  // The first value, or nothing. The second form compares without regard to case and is for names
  // that are kOther.
  std::optional<std::string_view> Get(Known name) const;
  std::optional<std::string_view> Get(std::string_view name) const;
  bool Has(Known name) const { return Get(name).has_value(); }
};

struct RequestView {
  std::string_view method;
  std::string_view target;  // origin form: path and query as on the wire
  int version_minor = 1;    // HTTP/1.x
  HeaderLines headers;

  std::string_view path() const { return target.substr(0, target.find('?')); }
  std::string_view query() const;  // after '?', or ""
};

struct ResponseView {
  int status = 0;
  std::string_view reason;
  HeaderLines headers;
};

// False for a path that some server may read as another one than it says: a segment that is "." or
// ".." once escapes are undone and what follows a ';' is dropped, a backslash, or an escaped slash,
// backslash or NUL.
bool IsPlainPath(std::string_view path);

}  // namespace llmd::http
