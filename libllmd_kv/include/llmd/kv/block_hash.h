// Names for KV blocks: chained hashes over token ids, in the algorithms the field uses: vLLM's
// (prefix cache, KV events) and llm-d's (request keys, approximate prefix index). Hashing a
// block of the usual sizes takes no heap of its own.
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

// One multimodal item that overlaps the block: its identifier and its offset relative to the
// block's first token.
struct MultiModalKey {
  std::string identifier;
  int64_t offset = 0;
};

// A block's extra keys, hashed in vLLM's order: LoRA, multimodal items, cache salt (first block
// only). vLLM tags them since 2026 (("lora", name, path), ("mm", id, offset), ("cache_salt",
// salt)); `tagged` false gives the older bare form.
struct ExtraKeys {
  std::string lora_name;
  std::string cache_salt;
  std::string lora_path;
  std::vector<MultiModalKey> multimodal;
  bool tagged = true;
  bool empty() const { return lora_name.empty() && cache_salt.empty() && multimodal.empty(); }
};

// An engine's block hash: h_i = H([h_{i-1}, tokens, extra]). Thread-safe.
class EngineHasher {
 public:
  virtual ~EngineHasher() = default;
  virtual Digest None() const = 0;  // the parent of the first block
  virtual Digest Hash(const Digest& parent, std::span<const int32_t> tokens,
                      const ExtraKeys& extra) const = 0;
};
// `algorithm`: sha256_cbor, xxhash_cbor; over pickle sha256 (vLLM's default), xxhash. `seed` is
// PYTHONHASHSEED, "" = unset: the sha256 ones then start from vLLM's fixed "vllm-none-hash", the
// xxhash ones from 32 random bytes. UNIMPLEMENTED lists the known ones.
StatusOr<std::unique_ptr<EngineHasher>> MakeEngineHasher(std::string_view algorithm,
                                                         std::string_view seed);

// A router's request keys as llm-d's token processor makes them. Thread-safe.
class RequestHasher {
 public:
  virtual ~RequestHasher() = default;
  virtual uint64_t Init(std::string_view model) const = 0;
  virtual uint64_t Hash(uint64_t parent, std::span<const uint32_t> tokens,
                        std::span<const std::string> extra) const = 0;
};
// `algorithm`: "" or cbor-fnv (FNV-1a-64 over canonical CBOR), xxh64. UNIMPLEMENTED lists the known
// ones.
StatusOr<std::unique_ptr<RequestHasher>> MakeRequestHasher(std::string_view algorithm,
                                                           std::string_view seed);

// The approximate producer's chain: h0 = XXH64(model ‖ salt); b = XXH64(LE64(XXH64(tokens LE32)) ‖
// LE64(prev)). The last partial block counts. Appends one hash per block to `out`.
void ApproxHashes(std::string_view model, std::string_view salt, std::span<const uint32_t> tokens,
                  int block_tokens, size_t max_blocks, std::vector<uint64_t>& out);

}  // namespace llmd::kv
