// What the legs have in common.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "llmd/http/relay/call.h"
#include "llmd/http/routing_headers.h"
#include "sidecar/job.h"

namespace llmd::sidecar {

// How long the address of an engine may be looked up.
inline constexpr Duration kAddressTimeout = std::chrono::seconds(5);

// Of a request's id, in the log.
inline constexpr size_t kMaxShownIdBytes = 128;

inline bool IsSuccess(int status) {
  return status >= 200 && status < 300;
}

// The outcome label of a leg that was answered.
inline std::string_view OutcomeOf(int status) {
  if (IsSuccess(status)) return "ok";
  return status >= 500 ? "http_5xx" : status >= 400 ? "http_4xx" : "http_other";
}

// Why a leg failed, as the client may read it: whom was asked is not its affair.
inline std::string_view WithoutAddress(std::string_view what, const relay::Target& asked) {
  const std::string address = asked.ToString() + ": ";
  if (asked.valid() && what.starts_with(address)) what.remove_prefix(address.size());
  return what;
}

// The path label of a request.
inline std::string_view RouteOf(Kind kind) {
  return kind == Kind::kDisaggregated ? "disaggregated"
         : kind == Kind::kLocal       ? "local"
                                      : "passthrough";
}

// The edits of the client's head for a leg: what is between router and sidecar only goes, and the
// request gets its id.
class LegHeaders {
 public:
  // `traceparent` "" = the client's stands.
  LegHeaders(const Job& job, std::string_view traceparent) {
    for (std::string_view name : http::kRoutingHeaders) Remove(name);
    if (!job.id.empty() && !job.given_id)
      lines_[count_++] = {.name = "x-request-id", .value = job.id};
    if (!traceparent.empty()) lines_[count_++] = {.name = "traceparent", .value = traceparent};
  }
  void Remove(std::string_view name) { lines_[count_++] = {.name = name, .remove = true}; }
  std::span<const relay::HeaderEdit> lines() const { return {lines_.data(), count_}; }

 private:
  std::array<relay::HeaderEdit, http::kRoutingHeaders.size() + 3> lines_;
  size_t count_ = 0;
};

}  // namespace llmd::sidecar
