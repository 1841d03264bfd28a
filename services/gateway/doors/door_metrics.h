// What the doors count. Names of tenants are bounded in number: the first so many have series of
// their own, later ones share "other".
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "llmd/metrics.h"

namespace llmd::doors {

// The series of one tenant. Lives as long as the registry.
struct TenantCounters {
  Counter* requests = nullptr;          // within the limit of requests
  Counter* tokens = nullptr;            // settled
  Counter* limited_requests = nullptr;  // refused for requests a minute
  Counter* limited_tokens = nullptr;    // … tokens a minute
};

enum class AuthFailure { kMissing, kMalformed, kUnknown, kExpired, kDisabled, kModel };
inline constexpr std::array<std::string_view, 6> kAuthFailureNames = {
    "missing", "malformed", "unknown", "expired", "disabled", "model_not_allowed"};

enum class Bound { kConnections, kHeaderBytes, kBodyBytes };
inline constexpr std::array<std::string_view, 3> kBoundNames = {"connections", "header_bytes",
                                                                "body_bytes"};

// Thread-safe.
class DoorMetrics {
 public:
  static constexpr size_t kMaxTenants = 1000, kMaxTargets = 4096;
  // `registry` outlives this.
  explicit DoorMetrics(MetricsRegistry& registry);

  // The same object for the same tenant; not for the way of a request.
  const TenantCounters& Of(const std::string& tenant);
  // Requests that a route sent to a target; the first kMaxTargets have series of their own.
  Counter& OfRoute(const std::string& route, const std::string& model, const std::string& pool);
  void Failed(AuthFailure failure) { auth_failures_[static_cast<size_t>(failure)]->Add(); }
  void Bounded(Bound bound, bool total) {
    bounded_[static_cast<size_t>(bound)][total ? 1 : 0]->Add();
  }
  // Of a file that is followed: "keys", "routes", "engine_key".
  void Reloaded(std::string_view file, bool ok);

  Counter& refused_paths;    // 400, 404 and 405 for their path or method
  Counter& refused_origins;  // CORS
  Counter& unknown_models;
  Counter& disagreeing_models;  // bodies that name several

 private:
  TenantCounters Make(const std::string& tenant);

  MetricsRegistry& registry_;
  std::array<Counter*, kAuthFailureNames.size()> auth_failures_;
  std::array<std::array<Counter*, 2>, kBoundNames.size()> bounded_;
  std::mutex mutex_;
  std::map<std::string, TenantCounters, std::less<>> tenants_;  // guarded by mutex_
  TenantCounters others_;
  std::set<std::array<std::string, 3>> targets_;  // guarded by mutex_
};

}  // namespace llmd::doors
