// Keys of a whole prompt: what is hashed with each block beside its tokens, the chain itself, and a
// memo that spares a conversation's next turn all but its new tail. Also the two-hash names of
// Dynamo and SMG. Formats: docs/wire/block-keys.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/kv/block_hash.h"

namespace llmd::kv {

// A picture or other medium inside a prompt: its content's hash and the tokens that stand for it.
struct MediaSpan {
  std::string hash;
  size_t offset = 0;
  size_t length = 0;
};

// The extra texts of a prompt's blocks, in llm-d's order: the media that reach into a block by
// their offsets, then, in block 0, the cache salt. Thread-compatible.
class BlockExtras {
 public:
  BlockExtras() = default;
  BlockExtras(std::span<const MediaSpan> media, std::string_view cache_salt, size_t block_tokens);
  // Of one block; empty for most. Valid until the object ends.
  std::span<const std::string> Of(size_t block) const;
  bool empty() const { return first_.empty() && media_.empty(); }

 private:
  struct Run {  // blocks with the same media
    size_t begin, end;
    std::vector<std::string> texts;
  };
  std::vector<std::string> first_;  // of block 0
  std::vector<Run> media_;          // by block, without block 0
};

// Remembers the keys of prompts by the content of their tokens, 64 blocks at a time, in a table of
// fixed size; what was not used for a while gives way. Content is named by a 128-bit hash (XXH3)
// that starts from a number drawn at random, so that nobody outside can aim for a collision.
// Thread-safe; takes no heap after its start.
class KeyMemo {
 public:
  // Blocks of one entry.
  static constexpr size_t kBlocks = 64;
  // `max_bytes` is rounded down to a power of two of entries of about half a KiB, one set at least.
  explicit KeyMemo(size_t max_bytes = size_t{64} << 20);
  ~KeyMemo();
  KeyMemo(const KeyMemo&) = delete;
  KeyMemo& operator=(const KeyMemo&) = delete;

  struct Name {
    uint64_t low = 0, high = 0;
    friend bool operator==(const Name&, const Name&) = default;
  };
  // The name of a segment of tokens after what `before` names.
  Name Next(const Name& before, const void* bytes, size_t count) const;
  Name First(uint64_t init) const { return {init, start_}; }
  // Writes the keys of the segment that `name` ends with; false when they are not known.
  bool Find(const Name& name, std::span<uint64_t, kBlocks> keys) const;
  void Put(const Name& name, std::span<const uint64_t, kBlocks> keys);
  uint64_t hits() const;
  uint64_t misses() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
  const uint64_t start_;
};

// Appends the request keys of a prompt's full blocks to `out`. `init` comes from hasher.Init; of
// one memo always with the same hasher and block size. `memo` may be null.
void RequestKeys(const RequestHasher& hasher, uint64_t init, std::span<const uint32_t> tokens,
                 size_t block_tokens, const BlockExtras& extras, KeyMemo* memo,
                 std::vector<uint64_t>& out);

// Dynamo's and SMG's names of a block: by its own tokens alone, and by the whole prefix.
struct BlockPair {
  uint64_t local = 0;
  uint64_t rolling = 0;
};
// The seed of local hashes: 1337, plus the hash of each that is not empty.
uint64_t PairSeed(std::string_view lora, std::string_view salt);
// local = XXH3-64(tokens LE32, seed); rolling = XXH3-64(rolling before ‖ local, 1337), the first
// the local one. Appends a pair for each full block.
void PairHashes(std::span<const uint32_t> tokens, size_t block_tokens, uint64_t seed,
                std::vector<BlockPair>& out);

}  // namespace llmd::kv
