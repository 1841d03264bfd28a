#include "gateway/doors/key_store.h"

#include <openssl/crypto.h>

#include <bit>
#include <cstring>

#include "llmd/format.h"

namespace llmd::doors {
namespace {

uint64_t PlaceOf(const SecretHash& hash) {
  uint64_t out;
  std::memcpy(&out, hash.data(), sizeof(out));
  return out;
}

bool Same(const SecretHash& a, const SecretHash& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// What follows "Bearer" and blanks; nothing for another scheme.
std::optional<std::string_view> BearerOf(std::string_view value) {
  constexpr std::string_view kBearer = "Bearer";
  value = Trim(value);
  if (value.size() <= kBearer.size() || value[kBearer.size()] != ' ' ||
      !EqualsIgnoreCase(value.substr(0, kBearer.size()), kBearer)) {
    return std::nullopt;
  }
  return Trim(value.substr(kBearer.size()));
}

}  // namespace

KeyTable::KeyTable(std::vector<std::shared_ptr<const ApiKey>> keys) : keys_(std::move(keys)) {
  slots_.assign(std::bit_ceil(2 * keys_.size() + 1), 0);
  mask_ = slots_.size() - 1;
  for (size_t i = 0; i < keys_.size(); ++i) {
    uint64_t at = PlaceOf(keys_[i]->record.sha256) & mask_;
    while (slots_[at] != 0) at = (at + 1) & mask_;
    slots_[at] = static_cast<uint32_t>(i + 1);
  }
}

std::shared_ptr<const ApiKey> KeyTable::Find(std::string_view secret) const {
  if (keys_.empty()) return nullptr;
  const SecretHash hash = HashSecret(secret);
  for (uint64_t at = PlaceOf(hash) & mask_; slots_[at] != 0; at = (at + 1) & mask_) {
    const std::shared_ptr<const ApiKey>& key = keys_[slots_[at] - 1];
    if (Same(key->record.sha256, hash)) return key;
  }
  return nullptr;
}

std::string_view PresentedSecret(HeaderSpan headers, bool* malformed) {
  std::optional<std::string_view> authorization, api_key;
  *malformed = false;
  for (size_t i = 0; i < headers.size(); ++i) {
    const HeaderLine line = headers[i];
    const bool first = EqualsIgnoreCase(line.name, "authorization");
    if (!first && !EqualsIgnoreCase(line.name, "x-api-key")) continue;
    std::optional<std::string_view>& place = first ? authorization : api_key;
    if (place) *malformed = true;
    place = line.value;
  }
  std::string_view secret;
  if (authorization) {
    const auto bearer = BearerOf(*authorization);
    if (!bearer) *malformed = true;
    secret = bearer.value_or("");
  } else if (api_key) {
    secret = Trim(*api_key);
  }
  if ((authorization || api_key) && (secret.empty() || secret.size() > kMaxSecret))
    *malformed = true;
  return *malformed ? std::string_view() : secret;
}

KeyCheck CheckKey(const KeyTable& table, HeaderSpan headers, int64_t now_unix_s) {
  bool malformed = false;
  const std::string_view secret = PresentedSecret(headers, &malformed);
  if (malformed) return {nullptr, AuthFailure::kMalformed};
  if (secret.empty()) return {nullptr, AuthFailure::kMissing};
  std::shared_ptr<const ApiKey> key = table.Find(secret);
  if (!key) return {nullptr, AuthFailure::kUnknown};
  if (key->record.disabled) return {nullptr, AuthFailure::kDisabled};
  if (key->record.expires_unix_s && now_unix_s >= *key->record.expires_unix_s)
    return {nullptr, AuthFailure::kExpired};
  return {std::move(key), AuthFailure::kMissing};
}

void KeyStore::Replace(std::vector<KeyRecord> keys) {
  std::vector<std::shared_ptr<const ApiKey>> out;
  out.reserve(keys.size());
  for (KeyRecord& record : keys) {
    auto key = std::make_shared<ApiKey>();
    key->budget =
        limiter_.BudgetOf(record.id, record.requests_per_minute, record.tokens_per_minute);
    key->counters = &metrics_.Of(record.tenant);
    key->record = std::move(record);
    out.push_back(std::move(key));
  }
  table_.Publish(std::make_shared<const KeyTable>(std::move(out)));
  limiter_.ForgetUnused();
}

Status KeyStore::Load(const std::string& path, bool priorities) {
  LLMD_ASSIGN_OR_RETURN(std::vector<KeyRecord> keys, ReadKeyFile(path));
  for (const KeyRecord& key : keys) {
    if (key.priority && !priorities)
      return InvalidArgument(path + ": key '" + key.id +
                             "': a picker of its own (--epp) is told no priority; give the key an "
                             "objective instead");
  }
  Replace(std::move(keys));
  return OkStatus();
}

}  // namespace llmd::doors
