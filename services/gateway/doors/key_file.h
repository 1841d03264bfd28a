// The file of --api-keys-file: what each key may do. It holds the SHA-256 of secrets, never the
// secrets. Schema: docs/reference/gateway-doors.md, "The file of keys".
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::doors {

using SecretHash = std::array<uint8_t, 32>;

inline constexpr size_t kMaxKeys = 20'000;
inline constexpr size_t kMaxKeyFileBytes = 8 << 20;
inline constexpr size_t kMaxModelPatterns = 256;         // of one key
inline constexpr size_t kMaxKeyName = 128;               // bytes of ids, tenants, fairness ids …
inline constexpr int64_t kMaxPerMinute = 1'000'000'000;  // requests or tokens

struct KeyRecord {
  std::string id;
  SecretHash sha256{};
  std::string tenant;
  std::vector<std::string> models;  // patterns (glob.h); empty = every model
  std::optional<int32_t> priority;  // of its requests, instead of the objective's
  std::string objective;            // x-llm-d-inference-objective; "" = the client's or none
  std::string fairness_id;          // "" = the tenant
  int64_t requests_per_minute = 0;  // 0 = no bound
  int64_t tokens_per_minute = 0;    // 0 = no bound
  bool trusted = false;             // its headers may steer requests
  bool disabled = false;
  std::optional<int64_t> expires_unix_s;

  bool MayUse(std::string_view model) const;
};

// INVALID_ARGUMENT has every error, one a line: "line 7: keys[2].sha256: key 'k3': …". Names are
// letters, digits and . _ : @ / -, at most kMaxKeyName bytes; ids and hashes are unique.
StatusOr<std::vector<KeyRecord>> ParseKeyFile(std::string_view text);
// NOT_FOUND when it cannot be opened.
StatusOr<std::vector<KeyRecord>> ReadKeyFile(const std::string& path);
// The same as text; ParseKeyFile gives the records back. Comments of a former file are lost.
std::string FormatKeyFile(const std::vector<KeyRecord>& keys);
// Replaces the file at `path` (or what it links to) at once, readable by its owner alone; a new
// name of an existing file keeps its owner.
Status WriteKeyFile(const std::string& path, const std::vector<KeyRecord>& keys);

// "sk-llmd-" and 256 random bits.
StatusOr<std::string> NewSecret();
SecretHash HashSecret(std::string_view secret);
std::string ToHex(const SecretHash& hash);
// "2027-01-31T12:00:00Z" or with an offset (RFC 3339, section 5.6), whole seconds. Nothing for
// anything else, and for dates that do not exist.
std::optional<int64_t> ParseRfc3339(std::string_view text);
// INVALID_ARGUMENT unless it may be an id, tenant, objective or fairness id.
Status CheckKeyName(std::string_view what, std::string_view name);

}  // namespace llmd::doors
