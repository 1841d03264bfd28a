// Names for KV blocks: chained hashes over token ids, in every algorithm the field uses (kv-index.md §1.5, §2.3).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::kv {

// A full digest, up to 32 bytes. Compare and hash by content.
struct Digest {
  std::array<uint8_t, 32> bytes{};
  uint8_t size = 0;
  // The last 8 bytes, big-endian: the id in KV events.
  uint64_t Low64() const;
  std::string Hex() const;
  friend bool operator==(const Digest&, const Digest&) = default;
};
struct DigestHash {
  size_t operator()(const Digest& d) const { return static_cast<size_t>(d.Low64()); }
};

// One entry of a block's extra keys, as vLLM orders them: LoRA name, multimodal items, cache salt (first block only).
struct ExtraKeys {
  std::string lora_name;
  std::string cache_salt;
  bool empty() const { return lora_name.empty() && cache_salt.empty(); }
};

// An engine's block hash: h_i = H([h_{i-1}, tokens, extra]). Thread-safe.
class EngineHasher {
 public:
  virtual ~EngineHasher() = default;
  virtual Digest None() const = 0;  // the parent of the first block
  virtual Digest Hash(const Digest& parent, std::span<const int32_t> tokens, const ExtraKeys& extra) const = 0;
};
// `algorithm`: sha256_cbor, xxhash_cbor; `seed` = PYTHONHASHSEED, "" = unset. UNIMPLEMENTED lists the known ones.
StatusOr<std::unique_ptr<EngineHasher>> MakeEngineHasher(std::string_view algorithm, std::string_view seed);

// A router's request keys (kv-index.md §1.5): cbor-fnv or xxh64.
class RequestHasher {
 public:
  virtual ~RequestHasher() = default;
  virtual uint64_t Init(std::string_view model) const = 0;
  virtual uint64_t Hash(uint64_t parent, std::span<const uint32_t> tokens, std::span<const std::string> extra) const = 0;
};
StatusOr<std::unique_ptr<RequestHasher>> MakeRequestHasher(std::string_view algorithm, std::string_view seed);

// The approximate producer's chain: h0 = XXH64(model ‖ salt); b = XXH64(LE64(XXH64(tokens LE32)) ‖ LE64(prev)). The last
// partial block counts. Appends one hash per block to `out`.
void ApproxHashes(std::string_view model, std::string_view salt, std::span<const uint32_t> tokens, int block_tokens,
                  size_t max_blocks, std::vector<uint64_t>& out);

}  // namespace llmd::kv
