// Which redirects of a scraped page are followed: 301, 302, 307 and 308 of a GET, at most
// kMaxRedirects one after another, to the same scheme and host. A page may have moved to another
// path or port of its engine; no engine can send the picker to another machine, nor off TLS.
#pragma once

#include <string>
#include <string_view>

#include "llmd/http/message.h"
#include "llmd/status.h"

namespace llmd::services {

constexpr int kMaxRedirects = 3;

bool IsRedirect(int http_status);
// Where `location` leads from the page at `from`: a whole URL, //host, /path, ?query or a relative
// path. UNAVAILABLE, in words for the log, for what is not followed.
StatusOr<http::Url> FollowRedirect(const http::Url& from, std::string_view location);

}  // namespace llmd::services
