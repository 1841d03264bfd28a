#include "llmd/http/message.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>

#include "http/list_member.h"
#include "llmd/http/head_view.h"

namespace llmd::http {
namespace {

constexpr std::pair<int, std::string_view> kPhrases[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool IsNameChar(char c) {
  return (c >= '0' && c <= '9') || (Lower(c) >= 'a' && Lower(c) <= 'z') || c == '-' || c == '_';
}

bool IsHostName(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  size_t label = 0;
  for (char c : host) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
    } else if (!IsNameChar(c) || ++label > 63) {
      return false;
    }
  }
  return label > 0;
}

bool IsHost(const std::string& host) {
  in_addr v4;
  const bool numeric = host.find_first_not_of("0123456789.") == std::string::npos;
  return numeric ? inet_pton(AF_INET, host.c_str(), &v4) == 1 : IsHostName(host);
}

bool IsIpv6(const std::string& host) {
  in6_addr v6;
  return host.find('\0') == std::string::npos && inet_pton(AF_INET6, host.c_str(), &v6) == 1;
}

bool ParsePort(std::string_view text, uint16_t* port) {
  if (text.empty() || text.size() > 5 || text[0] == '0') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *port);
  return error == std::errc() && end == text.data() + text.size();
}

std::vector<std::string> ConnectionNames(const Headers& headers) {
  std::vector<std::string> names;
  for (std::string_view value : headers.GetAll("Connection"))
    ForEachListMember(value, [&names](std::string_view name) { names.emplace_back(name); });
  return names;
}

}  // namespace

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  // Most that differ do so in a bit that case leaves alone, within the first eight bytes.
  constexpr uint64_t kCase = 0x2020202020202020;
  if (a.size() >= sizeof(uint64_t)) {
    uint64_t x = 0, y = 0;
    std::memcpy(&x, a.data(), sizeof x);
    std::memcpy(&y, b.data(), sizeof y);
    if (((x ^ y) & ~kCase) != 0) return false;
  }
  return std::equal(a.begin(), a.end(), b.begin(),
                    [](char x, char y) { return x == y || Lower(x) == Lower(y); });
}

void Headers::Add(std::string_view name, std::string_view value) {
  lines_.emplace_back(name, value);
}

void Headers::Set(std::string_view name, std::string_view value) {
  const auto same = [&](const Line& line) { return EqualsIgnoreCase(line.first, name); };
  const auto first = std::find_if(lines_.begin(), lines_.end(), same);
  if (first == lines_.end()) return Add(name, value);
  // Both views may look into lines that are about to change.
  const std::string kept_name(name);
  std::string copy(value);
  first->second = std::move(copy);
  lines_.erase(
      std::remove_if(first + 1, lines_.end(),
                     [&](const Line& line) { return EqualsIgnoreCase(line.first, kept_name); }),
      lines_.end());
}

void Headers::Remove(std::string_view name) {
  std::erase_if(lines_, [&](const Line& line) { return EqualsIgnoreCase(line.first, name); });
}

bool Headers::Has(std::string_view name) const {
  return Get(name).has_value();
}

std::optional<std::string_view> Headers::Get(std::string_view name) const {
  for (const Line& line : lines_) {
    if (EqualsIgnoreCase(line.first, name)) return line.second;
  }
  return std::nullopt;
}

std::vector<std::string_view> Headers::GetAll(std::string_view name) const {
  std::vector<std::string_view> values;
  for (const Line& line : lines_) {
    if (EqualsIgnoreCase(line.first, name)) values.push_back(line.second);
  }
  return values;
}

std::string_view RequestHead::path() const {
  return std::string_view(target).substr(0, target.find('?'));
}

std::string_view RequestHead::query() const {
  const size_t mark = target.find('?');
  return mark == std::string::npos ? std::string_view() : std::string_view(target).substr(mark + 1);
}

std::string_view ReasonPhrase(int status) {
  for (const auto& [code, phrase] : kPhrases) {
    if (code == status) return phrase;
  }
  return "Unknown";
}

void StripHopByHop(Headers& headers) {
  for (const std::string& name : ConnectionNames(headers)) headers.Remove(name);
  headers.RemoveIf([](std::string_view name) { return IsHopByHop(KnownHeader(name)); });
}

std::string HostPort::ToString() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const auto bad = [&]() -> StatusOr<HostPort> {
    return InvalidArgument("'" + std::string(text.substr(0, 300)) +
                           "' is not host:port: expected a name, an IPv4 address or [IPv6], then "
                           "':' and a port of 1 to 65535");
  };
  const size_t colon = text.rfind(':');
  HostPort result;
  if (colon == std::string_view::npos || !ParsePort(text.substr(colon + 1), &result.port)) {
    return bad();
  }
  const std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  result.host = bracketed ? host.substr(1, host.size() - 2) : host;
  if (bracketed ? !IsIpv6(result.host) : !IsHost(result.host)) return bad();
  return result;
}

StatusOr<Url> ParseUrl(std::string_view text) {
  constexpr std::string_view kPlain = "http://", kTls = "https://";
  Url url;
  url.tls = text.starts_with(kTls);
  std::string_view rest = text;
  rest.remove_prefix(url.tls ? kTls.size() : std::min(kPlain.size(), text.size()));
  const size_t slash = std::min(rest.find_first_of("/?#"), rest.size());
  std::string authority(rest.substr(0, slash));
  if (authority.find(':', authority.rfind(']') + 1) == std::string::npos)
    authority += url.tls ? ":443" : ":80";
  StatusOr<HostPort> peer = ParseHostPort(authority);
  rest.remove_prefix(slash);
  if ((!url.tls && !text.starts_with(kPlain)) || !peer.ok() ||
      (!rest.empty() && !rest.starts_with('/')) ||
      rest.find_first_of(" \t\r\n#") != std::string_view::npos) {
    return InvalidArgument("'" + std::string(text.substr(0, 300)) +
                           "': expected http[s]://host[:port][/path]");
  }
  url.peer = std::move(*peer);
  if (!rest.empty()) url.target = rest;
  return url;
}

}  // namespace llmd::http
