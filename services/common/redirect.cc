#include "common/redirect.h"

#include <algorithm>

namespace llmd::services {
namespace {

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool SameHost(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return Lower(x) == Lower(y); });
}

// "scheme:" in front, as RFC 3986 has it.
bool HasScheme(std::string_view location) {
  const size_t colon = location.find(':');
  return colon != std::string_view::npos && colon < location.find_first_of("/?#");
}

// The path of `target` up to its last slash, or with `whole` all of it.
std::string_view PathOf(std::string_view target, bool whole) {
  const std::string_view path = target.substr(0, target.find('?'));
  return whole ? path : path.substr(0, path.rfind('/') + 1);
}

}  // namespace

bool IsRedirect(int http_status) {
  return http_status == 301 || http_status == 302 || http_status == 307 || http_status == 308;
}

StatusOr<http::Url> FollowRedirect(const http::Url& from, std::string_view location) {
  const std::string told(location.substr(0, 300));
  location = location.substr(0, location.find('#'));
  if (location.empty()) return Unavailable("a redirect without a location");
  http::Url to = from;
  if (HasScheme(location) || location.starts_with("//")) {
    std::string text(location);
    if (location.starts_with("//")) text.insert(0, from.tls ? "https:" : "http:");
    for (size_t i = 0; i < text.find(':'); ++i) text[i] = Lower(text[i]);
    StatusOr<http::Url> parsed = http::ParseUrl(text);
    if (!parsed.ok()) return Unavailable("a redirect to '" + told + "', which is no URL");
    to = std::move(*parsed);
  } else if (location.starts_with('/')) {
    to.target = location;
  } else {
    to.target = PathOf(from.target, location.starts_with('?'));
    to.target += location;
  }
  // A line of the request is made of it.
  if (to.target.find_first_of(" \t\r\n") != std::string::npos)
    return Unavailable("a redirect to '" + told + "', which is no URL");
  if (to.tls != from.tls || !SameHost(to.peer.host, from.peer.host))
    return Unavailable("a redirect to '" + told + "': only the same scheme and host is followed");
  return to;
}

}  // namespace llmd::services
