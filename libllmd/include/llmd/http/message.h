// HTTP messages as values: what a parser makes and a writer takes. No I/O here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/status.h"

namespace llmd::http {

// Header lines in the order of the wire; repeated names are kept. Names compare without case.
// Thread-compatible.
class Headers {
 public:
  using Line = std::pair<std::string, std::string>;
  Headers() = default;
  Headers(std::initializer_list<Line> lines) : lines_(lines) {}

  void Add(std::string_view name, std::string_view value);
  // Replaces every line of that name by one.
  void Set(std::string_view name, std::string_view value);
  void Remove(std::string_view name);
  template <typename Unwanted>
  void RemoveIf(const Unwanted& unwanted) {  // by name
    std::erase_if(lines_, [&](const Line& line) { return unwanted(line.first); });
  }
  bool Has(std::string_view name) const;
  // The first value, or nothing.
  std::optional<std::string_view> Get(std::string_view name) const;
  std::vector<std::string_view> GetAll(std::string_view name) const;
  const std::vector<Line>& lines() const { return lines_; }
  bool empty() const { return lines_.empty(); }

 private:
  std::vector<Line> lines_;
};

bool EqualsIgnoreCase(std::string_view a, std::string_view b);

struct RequestHead {
  std::string method = "GET";
  std::string target = "/";  // origin form: path and query as on the wire
  int version_minor = 1;     // HTTP/1.x
  Headers headers;

  std::string_view path() const;   // target up to '?'
  std::string_view query() const;  // after '?', or ""
};

struct ResponseHead {
  int status = 200;
  std::string reason;  // "" = the standard phrase
  Headers headers;
};

// A whole small message.
struct Request {
  RequestHead head;
  std::string body;
};
struct Response {
  ResponseHead head;
  std::string body;
};

std::string_view ReasonPhrase(int status);
// Removes hop-by-hop lines (RFC 9110 §7.6.1), those named in Connection included.
void StripHopByHop(Headers& headers);

// "host:port", strict: a name or IPv4 literal or [IPv6], and a port of 1..65535. Anything else
// INVALID_ARGUMENT.
struct HostPort {
  std::string host;  // without brackets
  uint16_t port = 0;
  std::string ToString() const;
  friend bool operator==(const HostPort&, const HostPort&) = default;
  friend auto operator<=>(const HostPort&, const HostPort&) = default;
};
StatusOr<HostPort> ParseHostPort(std::string_view text);

// "http[s]://host[:port][/path]"; anything else INVALID_ARGUMENT. The port is by default 80 or 443.
struct Url {
  bool tls = false;
  HostPort peer;
  std::string target = "/";  // path and query
};
StatusOr<Url> ParseUrl(std::string_view text);

}  // namespace llmd::http
