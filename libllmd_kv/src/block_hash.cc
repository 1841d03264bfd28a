#include "llmd/kv/block_hash.h"

#include <openssl/evp.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cerrno>
#include <cstring>

#include "cbor.h"

namespace llmd::kv {
namespace {

constexpr std::string_view kDefaultSeed = "vllm-none-hash";

struct ContextDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

using MdContext = std::unique_ptr<EVP_MD_CTX, ContextDeleter>;

MdContext MakeSha256Context() {
  MdContext context(EVP_MD_CTX_new());
  LLMD_CHECK(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  return context;
}

Digest Sha256(std::span<const uint8_t> bytes) {
  // A context kept per thread spares the look-up of every block; without a digest named it begins
  // anew with its own.
  thread_local const MdContext context = MakeSha256Context();
  Digest digest;
  unsigned size = 0;
  const bool done = EVP_DigestInit_ex(context.get(), nullptr, nullptr) == 1 &&
                    EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) == 1 &&
                    EVP_DigestFinal_ex(context.get(), digest.bytes.data(), &size) == 1;
  LLMD_CHECK(done);
  digest.size = static_cast<uint8_t>(size);
  return digest;
}

Digest Xxh3(std::span<const uint8_t> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  Digest digest;
  digest.size = sizeof(canonical.digest);
  std::memcpy(digest.bytes.data(), canonical.digest, sizeof(canonical.digest));
  return digest;
}

void WriteLora(CborWriter& cbor, const ExtraKeys& extra) {
  if (!extra.tagged) return cbor.Text(extra.lora_name);
  cbor.Array(3);
  cbor.Text("lora");
  cbor.Text(extra.lora_name);
  cbor.Text(extra.lora_path);
}

void WriteMultiModal(CborWriter& cbor, const MultiModalKey& item, bool tagged) {
  cbor.Array(tagged ? 3 : 2);
  if (tagged) cbor.Text("mm");
  cbor.Text(item.identifier);
  cbor.Integer(item.offset);
}

void WriteSalt(CborWriter& cbor, const ExtraKeys& extra) {
  if (!extra.tagged) return cbor.Text(extra.cache_salt);
  cbor.Array(2);
  cbor.Text("cache_salt");
  cbor.Text(extra.cache_salt);
}

void WriteExtra(CborWriter& cbor, const ExtraKeys& extra) {
  if (extra.empty()) return cbor.Null();
  cbor.Array((extra.lora_name.empty() ? 0 : 1) + extra.multimodal.size() +
             (extra.cache_salt.empty() ? 0 : 1));
  if (!extra.lora_name.empty()) WriteLora(cbor, extra);
  for (const MultiModalKey& item : extra.multimodal) WriteMultiModal(cbor, item, extra.tagged);
  if (!extra.cache_salt.empty()) WriteSalt(cbor, extra);
}

using HashFn = Digest (*)(std::span<const uint8_t>);

Digest HashText(HashFn hash, std::string_view text) {
  CborWriter cbor;
  cbor.Text(text);
  return hash(cbor.bytes());
}

StatusOr<Digest> RandomDigest() {
  Digest digest;
  digest.size = 32;
  if (getrandom(digest.bytes.data(), digest.size, 0) != digest.size)
    return ErrnoStatus(errno, "getrandom");
  return digest;
}

class CborEngineHasher final : public EngineHasher {
 public:
  CborEngineHasher(HashFn hash, Digest none) : hash_(hash), none_(none) {}

  Digest None() const override { return none_; }
  Digest Hash(const Digest& parent, std::span<const int32_t> tokens,
              const ExtraKeys& extra) const override {
    CborWriter cbor;
    cbor.Array(3);
    cbor.Bytes({parent.bytes.data(), parent.size});
    cbor.Numbers(tokens);
    WriteExtra(cbor, extra);
    return hash_(cbor.bytes());
  }

 private:
  const HashFn hash_;
  const Digest none_;
};

}  // namespace

uint64_t Digest::Low64() const {
  uint64_t value = 0;
  for (int i = size < 8 ? 0 : size - 8; i < size; ++i) value = value << 8 | bytes[i];
  return value;
}

std::string Digest::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (int i = 0; i < size; ++i) {
    out += kDigits[bytes[i] >> 4];
    out += kDigits[bytes[i] & 15];
  }
  return out;
}

StatusOr<std::unique_ptr<EngineHasher>> MakeEngineHasher(std::string_view algorithm,
                                                         std::string_view seed) {
  if (algorithm == "sha256_cbor") {
    return std::make_unique<CborEngineHasher>(Sha256,
                                              HashText(Sha256, seed.empty() ? kDefaultSeed : seed));
  }
  if (algorithm == "xxhash_cbor") {
    if (!seed.empty()) return std::make_unique<CborEngineHasher>(Xxh3, HashText(Xxh3, seed));
    LLMD_ASSIGN_OR_RETURN(Digest none, RandomDigest());
    return std::make_unique<CborEngineHasher>(Xxh3, none);
  }
  return Unimplemented("prefix caching hash '" + std::string(algorithm) +
                       "': expected sha256_cbor or xxhash_cbor");
}

}  // namespace llmd::kv
