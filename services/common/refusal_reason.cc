#include "common/refusal_reason.h"

#include <algorithm>
#include <utility>

namespace llmd::services {
namespace {

// By how the text begins; the first that fits counts.
constexpr std::pair<std::string_view, std::string_view> kByText[] = {
    {"malformed request line", "request_line"},
    {"malformed method", "request_line"},
    {"malformed request target", "request_line"},
    {"request target of", "request_line"},
    {"not an HTTP message", "request_line"},
    {"malformed HTTP version", "version"},
    {"HTTP version", "version"},
    {"malformed header name", "header"},
    {"header line without", "header"},
    {"folded header line", "header"},
    {"control character", "header"},
    {"line ends without CR", "header"},
    {"malformed Host", "host"},
    {"missing Host", "host"},
    {"more than one Host", "host"},
    {"Transfer-Encoding in", "framing"},
    {"both Content-Length", "framing"},
    {"differing Content-Length", "framing"},
    {"malformed Content-Length", "framing"},
    {"unknown transfer coding", "framing"},
    {"malformed chunked body", "framing"},
    {"unknown expectation", "expectation"},
    {"header block too large", "head_size"},
    {"too many header lines", "head_size"},
    {"the body's declared length", "body_size"},
    {"the body is over", "body_size"},
    {"the request head did not", "head_slow"},
    {"the body did not", "body_slow"},
    {"too many connections", "connections"},
    {"too many request bodies", "bodies_in_flight"},
};

std::string_view ByStatus(int status) {
  switch (status) {
    case 400:
      return "request_line";
    case 408:
      return "body_slow";
    case 413:
      return "body_size";
    case 417:
      return "expectation";
    case 431:
      return "head_size";
    case 505:
      return "version";
    default:
      return "other";
  }
}

}  // namespace

size_t RefusalReason(int status, std::string_view message) {
  std::string_view reason = ByStatus(status);
  for (const auto& [text, named] : kByText) {
    if (!message.starts_with(text)) continue;
    reason = named;
    break;
  }
  const auto at = std::find(kRefusalReasons.begin(), kRefusalReasons.end(), reason);
  return static_cast<size_t>(at - kRefusalReasons.begin());
}

}  // namespace llmd::services
