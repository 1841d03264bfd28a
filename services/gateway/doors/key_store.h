// The keys of clients, found by the hash of their secret.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/doors/door_metrics.h"
#include "gateway/doors/header_span.h"
#include "gateway/doors/key_file.h"
#include "gateway/doors/rate_limiter.h"
#include "llmd/snapshot.h"
#include "llmd/status.h"

namespace llmd::doors {

// A key in use. Immutable but for its budget.
struct ApiKey {
  KeyRecord record;
  std::shared_ptr<KeyBudget> budget;
  const TenantCounters* counters = nullptr;  // lives as the metrics
};

// Immutable.
class KeyTable {
 public:
  KeyTable() = default;
  explicit KeyTable(std::vector<std::shared_ptr<const ApiKey>> keys);
  // Null when there is none. Hashes are looked up by eight bytes and compared in constant time, so
  // that how long it takes says nothing of a secret that is nearly right.
  std::shared_ptr<const ApiKey> Find(std::string_view secret) const;
  const std::vector<std::shared_ptr<const ApiKey>>& keys() const { return keys_; }

 private:
  std::vector<std::shared_ptr<const ApiKey>> keys_;
  std::vector<uint32_t> slots_;  // open addressing: index + 1 of a key, 0 = free
  uint64_t mask_ = 0;
};

// What a request shows.
struct KeyCheck {
  std::shared_ptr<const ApiKey> key;  // set when it is good
  AuthFailure failure = AuthFailure::kMissing;
};

inline constexpr size_t kMaxSecret = 512;  // bytes; longer ones are of no key

// The secret in `Authorization: Bearer …`, else in `x-api-key`; "" without one. `malformed` when a
// header is there twice, with another scheme, without a value or above kMaxSecret.
std::string_view PresentedSecret(HeaderSpan headers, bool* malformed);
// `now_unix_s` decides about expiry.
KeyCheck CheckKey(const KeyTable& table, HeaderSpan headers, int64_t now_unix_s);

// Holds the table of the file that was last good. Thread-safe.
class KeyStore {
 public:
  // Both outlive this.
  KeyStore(RateLimiter& limiter, DoorMetrics& metrics) : limiter_(limiter), metrics_(metrics) {}
  // Goes over to these keys; budgets of ids that stay are kept.
  void Replace(std::vector<KeyRecord> keys);
  // Reads a file and goes over to it; an error leaves all as it was. Without `priorities` a key
  // that has one is an error.
  Status Load(const std::string& path, bool priorities = true);
  const Snapshot<KeyTable>& table() const { return table_; }

 private:
  RateLimiter& limiter_;
  DoorMetrics& metrics_;
  Snapshot<KeyTable> table_{std::make_shared<const KeyTable>()};
};

}  // namespace llmd::doors
