#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "cbor.h"
#include "llmd/kv/block_hash.h"

namespace llmd::kv {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token arrays are hashed as they lie in memory");

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

uint64_t Fnv1a(std::span<const uint8_t> bytes) {
  uint64_t hash = kFnvOffset;
  for (uint8_t byte : bytes) hash = (hash ^ byte) * kFnvPrime;
  return hash;
}

class CborFnvHasher final : public RequestHasher {
 public:
  explicit CborFnvHasher(std::string_view seed)
      : seed_hash_(Fnv1a({reinterpret_cast<const uint8_t*>(seed.data()), seed.size()})) {}

  uint64_t Init(std::string_view model) const override {
    CborWriter cbor;
    cbor.Array(3);
    cbor.Unsigned(seed_hash_);
    cbor.Null();
    cbor.Text(model);
    return Fnv1a(cbor.bytes());
  }

  uint64_t Hash(uint64_t parent, std::span<const uint32_t> tokens,
                std::span<const std::string> extra) const override {
    CborWriter cbor;
    cbor.Array(3);
    cbor.Unsigned(parent);
    cbor.Numbers(tokens);
    WriteExtra(cbor, extra);
    return Fnv1a(cbor.bytes());
  }

 private:
  static void WriteExtra(CborWriter& cbor, std::span<const std::string> extra) {
    if (extra.empty()) return cbor.Null();
    cbor.Array(extra.size());
    for (const std::string& text : extra) {
      cbor.Map(1);
      cbor.Text("Hash");
      cbor.Text(text);
    }
  }
  const uint64_t seed_hash_;
};

void UpdateLe64(XXH64_state_t& state, uint64_t value) {
  XXH64_update(&state, &value, sizeof(value));
}

void UpdateText(XXH64_state_t& state, std::string_view text) {
  UpdateLe64(state, text.size());
  XXH64_update(&state, text.data(), text.size());
}

class Xxh64Hasher final : public RequestHasher {
 public:
  explicit Xxh64Hasher(std::string_view seed) : seed_hash_(XXH64(seed.data(), seed.size(), 0)) {}

  uint64_t Init(std::string_view model) const override {
    XXH64_state_t state;
    XXH64_reset(&state, 0);
    UpdateLe64(state, seed_hash_);
    UpdateText(state, model);
    return XXH64_digest(&state);
  }

  uint64_t Hash(uint64_t parent, std::span<const uint32_t> tokens,
                std::span<const std::string> extra) const override {
    XXH64_state_t state;
    XXH64_reset(&state, 0);
    UpdateLe64(state, parent);
    XXH64_update(&state, tokens.data(), tokens.size_bytes());
    for (const std::string& text : extra) UpdateText(state, text);
    return XXH64_digest(&state);
  }

 private:
  const uint64_t seed_hash_;
};

}  // namespace

StatusOr<std::unique_ptr<RequestHasher>> MakeRequestHasher(std::string_view algorithm,
                                                           std::string_view seed) {
  if (algorithm.empty() || algorithm == "cbor-fnv") return std::make_unique<CborFnvHasher>(seed);
  if (algorithm == "xxh64") return std::make_unique<Xxh64Hasher>(seed);
  return Unimplemented("hashAlgorithm '" + std::string(algorithm) +
                       "': expected cbor-fnv or xxh64");
}

void ApproxHashes(std::string_view model, std::string_view salt, std::span<const uint32_t> tokens,
                  int block_tokens, size_t max_blocks, std::vector<uint64_t>& out) {
  LLMD_CHECK(block_tokens > 0);
  XXH64_state_t state;
  XXH64_reset(&state, 0);
  XXH64_update(&state, model.data(), model.size());
  XXH64_update(&state, salt.data(), salt.size());
  uint64_t previous = XXH64_digest(&state);
  const size_t width = static_cast<size_t>(block_tokens);
  for (size_t begin = 0; begin < tokens.size() && max_blocks > 0; begin += width, --max_blocks) {
    const auto block = tokens.subspan(begin, std::min(width, tokens.size() - begin));
    const uint64_t link[2] = {XXH64(block.data(), block.size_bytes(), 0), previous};
    previous = XXH64(link, sizeof(link), 0);
    out.push_back(previous);
  }
}

}  // namespace llmd::kv
