// Which web pages may call the gateway from a browser (the CORS protocol of the Fetch standard).
// Without origins there is none: browsers then refuse by themselves.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gateway/doors/header_span.h"
#include "llmd/clock.h"
#include "llmd/status.h"

namespace llmd::doors {

struct CorsOptions {
  std::vector<std::string> origins;             // "https://app.example.com[:port]", or "*" alone
  std::vector<std::string> headers;             // that pages may send; empty = DefaultCorsHeaders()
  Duration max_age = std::chrono::minutes(10);  // how long a browser keeps a preflight's answer
};
inline constexpr size_t kMaxOrigins = 256;

const std::vector<std::string>& DefaultCorsHeaders();

// Immutable; the texts of edits live as long as it, but for an origin, which is the request's own.
class Cors {
 public:
  static constexpr size_t kMaxEdits = 5;

  Cors() = default;  // off
  // INVALID_ARGUMENT names the origin or header and the rule.
  static StatusOr<Cors> Create(const CorsOptions& options);

  bool on() const { return any_ || !origins_.empty(); }
  bool Allows(std::string_view origin) const;
  static bool IsPreflight(std::string_view method, HeaderSpan headers);
  // Headers of an answer to a page of `origin`, which is allowed; gives how many. Where they depend
  // on the origin, answers to others need `Vary: Origin` too: pass "".
  size_t AnswerEdits(std::string_view origin, HeaderEdit* out) const;
  // The same for a preflight; `methods` is what the path allows.
  size_t PreflightEdits(std::string_view origin, std::string_view methods, HeaderEdit* out) const;

 private:
  size_t OriginEdits(std::string_view origin, HeaderEdit* out) const;

  bool any_ = false;
  std::vector<std::string> origins_;
  std::string headers_, max_age_s_;
};

}  // namespace llmd::doors
