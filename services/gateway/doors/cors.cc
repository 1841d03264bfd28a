#include "gateway/doors/cors.h"

#include <algorithm>

namespace llmd::doors {
namespace {

constexpr std::string_view kExposed =
    "x-request-id, retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-tokens";

bool IsToken(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  });
}

// scheme://host[:port] as browsers write it: lower case, no path, no user.
bool IsOrigin(std::string_view text) {
  const size_t colon = text.find("://");
  if (colon == std::string_view::npos || colon == 0 || text.size() > 512) return false;
  const std::string_view host = text.substr(colon + 3);
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           std::string_view("+-.:_[]").find(c) != std::string_view::npos;
  };
  return !host.empty() && std::all_of(host.begin(), host.end(), plain) &&
         std::all_of(text.begin(), text.begin() + static_cast<ptrdiff_t>(colon), plain);
}

}  // namespace

const std::vector<std::string>& DefaultCorsHeaders() {
  static const std::vector<std::string> kHeaders = {"authorization",
                                                    "content-type",
                                                    "x-api-key",
                                                    "x-request-id",
                                                    "traceparent",
                                                    "openai-beta",
                                                    "openai-organization",
                                                    "openai-project",
                                                    "anthropic-version",
                                                    "anthropic-beta",
                                                    "anthropic-dangerous-direct-browser-access",
                                                    "x-stainless-arch",
                                                    "x-stainless-lang",
                                                    "x-stainless-os",
                                                    "x-stainless-package-version",
                                                    "x-stainless-retry-count",
                                                    "x-stainless-runtime",
                                                    "x-stainless-runtime-version",
                                                    "x-stainless-timeout",
                                                    "x-stainless-helper-method"};
  return kHeaders;
}

StatusOr<Cors> Cors::Create(const CorsOptions& options) {
  Cors out;
  if (options.origins.size() > kMaxOrigins)
    return InvalidArgument("--cors-origin: more than " + std::to_string(kMaxOrigins) + " origins");
  for (const std::string& origin : options.origins) {
    if (origin == "*") {
      if (options.origins.size() > 1)
        return InvalidArgument("--cors-origin: '*' stands for all and excludes others");
      out.any_ = true;
    } else if (!IsOrigin(origin)) {
      return InvalidArgument("--cors-origin '" + origin +
                             "': expected scheme://host[:port] in lower case without a path, or *");
    } else {
      out.origins_.push_back(origin);
    }
  }
  for (const std::string& name : options.headers.empty() ? DefaultCorsHeaders() : options.headers) {
    if (!IsToken(name))
      return InvalidArgument("--cors-allow-header '" + name + "': expected the name of a header");
    if (!out.headers_.empty()) out.headers_ += ", ";
    out.headers_ += name;
  }
  out.max_age_s_ =
      std::to_string(std::chrono::duration_cast<std::chrono::seconds>(options.max_age).count());
  return out;
}

bool Cors::Allows(std::string_view origin) const {
  return any_ || std::find(origins_.begin(), origins_.end(), origin) != origins_.end();
}

bool Cors::IsPreflight(std::string_view method, HeaderSpan headers) {
  return method == "OPTIONS" && headers.Get("origin") &&
         headers.Get("access-control-request-method");
}

size_t Cors::OriginEdits(std::string_view origin, HeaderEdit* out) const {
  size_t n = 0;
  if (any_) {
    if (!origin.empty()) out[n++] = {"access-control-allow-origin", "*"};
    return n;
  }
  if (!origin.empty()) out[n++] = {"access-control-allow-origin", origin};
  out[n++] = {"vary", "Origin"};
  return n;
}

size_t Cors::AnswerEdits(std::string_view origin, HeaderEdit* out) const {
  size_t n = OriginEdits(origin, out);
  if (!origin.empty()) out[n++] = {"access-control-expose-headers", kExposed};
  return n;
}

size_t Cors::PreflightEdits(std::string_view origin, std::string_view methods,
                            HeaderEdit* out) const {
  size_t n = OriginEdits(origin, out);
  out[n++] = {"access-control-allow-methods", methods};
  out[n++] = {"access-control-allow-headers", headers_};
  out[n++] = {"access-control-max-age", max_age_s_};
  return n;
}

}  // namespace llmd::doors
