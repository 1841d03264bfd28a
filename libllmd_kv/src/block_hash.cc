#include "llmd/kv/block_hash.h"

#include <openssl/evp.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cerrno>
#include <cstring>

#include "engine_block.h"

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

using HashFn = Digest (*)(std::span<const uint8_t>);

StatusOr<Digest> RandomDigest() {
  Digest digest;
  digest.size = 32;
  if (getrandom(digest.bytes.data(), digest.size, 0) != digest.size)
    return ErrnoStatus(errno, "getrandom");
  return digest;
}

// What vLLM writes before it hashes, in one of two encodings.
template <typename Encoding>
class ChainHasher final : public EngineHasher {
 public:
  ChainHasher(HashFn hash, Digest none) : hash_(hash), none_(none) {}

  Digest None() const override { return none_; }
  Digest Hash(const Digest& parent, std::span<const int32_t> tokens,
              const ExtraKeys& extra) const override {
    Encoding out;
    return hash_(out.Block({parent.bytes.data(), parent.size}, tokens, extra));
  }

 private:
  const HashFn hash_;
  const Digest none_;
};

template <typename Encoding>
StatusOr<std::unique_ptr<EngineHasher>> Make(HashFn hash, std::string_view seed) {
  if (seed.empty()) {
    LLMD_ASSIGN_OR_RETURN(Digest none, RandomDigest());
    return std::make_unique<ChainHasher<Encoding>>(hash, none);
  }
  Encoding out;
  return std::make_unique<ChainHasher<Encoding>>(hash, hash(out.Seed(seed)));
}

std::string_view OrDefault(std::string_view seed) {
  return seed.empty() ? kDefaultSeed : seed;
}

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
  if (algorithm == "sha256_cbor") return Make<CborBlock>(Sha256, OrDefault(seed));
  if (algorithm == "sha256") return Make<PickleBlock>(Sha256, OrDefault(seed));
  if (algorithm == "xxhash_cbor") return Make<CborBlock>(Xxh3, seed);
  if (algorithm == "xxhash") return Make<PickleBlock>(Xxh3, seed);
  return Unimplemented("prefix caching hash '" + std::string(algorithm) +
                       "': expected sha256_cbor, sha256, xxhash_cbor or xxhash");
}

}  // namespace llmd::kv
