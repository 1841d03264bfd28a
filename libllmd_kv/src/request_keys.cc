#include "llmd/kv/request_keys.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace llmd::kv {
namespace {

constexpr uint64_t kPairSeed = 1337;

uint64_t Xxh3(const void* bytes, size_t count, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes, count, seed);
}

// The memo's name of a segment after the one before it: all that its keys depend on.
KeyMemo::Name NameSegment(const KeyMemo& memo, KeyMemo::Name name, std::span<const uint32_t> tokens,
                          size_t first_block, const BlockExtras& extras) {
  name = memo.Next(name, tokens.data(), tokens.size_bytes());
  if (extras.empty()) return name;
  for (size_t i = 0; i < KeyMemo::kBlocks; ++i) {
    for (const std::string& text : extras.Of(first_block + i)) {
      name = memo.Next(name, text.data(), text.size());
      name = memo.Next(name, &i, sizeof(i));
    }
  }
  return name;
}

}  // namespace

BlockExtras::BlockExtras(std::span<const MediaSpan> media, std::string_view cache_salt,
                         size_t block_tokens) {
  LLMD_CHECK(block_tokens > 0);
  std::vector<const MediaSpan*> sorted;
  std::vector<size_t> edges;  // blocks at which the media of a block may change
  for (const MediaSpan& item : media) {
    if (item.length == 0) continue;
    sorted.push_back(&item);
    edges.push_back(item.offset / block_tokens);
    edges.push_back((item.offset + item.length - 1) / block_tokens);
    for (size_t i = edges.size() - 2, n = edges.size(); i < n; ++i) edges.push_back(edges[i] + 1);
  }
  std::ranges::sort(sorted, {},
                    [](const MediaSpan* item) { return std::pair(item->offset, item); });
  edges.push_back(0);
  edges.push_back(1);
  std::ranges::sort(edges);
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  for (size_t i = 0; i + 1 < edges.size(); ++i) {
    const size_t begin = edges[i] * block_tokens, end = begin + block_tokens;
    Run run{edges[i], edges[i + 1], {}};
    for (const MediaSpan* item : sorted)
      if (item->offset < end && item->offset + item->length > begin)
        run.texts.push_back(item->hash);
    if (run.begin == 0) {
      first_ = std::move(run.texts);
    } else if (!run.texts.empty()) {
      media_.push_back(std::move(run));
    }
  }
  if (!cache_salt.empty()) first_.emplace_back(cache_salt);
}

std::span<const std::string> BlockExtras::Of(size_t block) const {
  if (block == 0) return first_;
  const auto after = std::ranges::upper_bound(media_, block, {}, &Run::begin);
  if (after == media_.begin() || std::prev(after)->end <= block) return {};
  return std::prev(after)->texts;
}

void RequestKeys(const RequestHasher& hasher, uint64_t init, std::span<const uint32_t> tokens,
                 size_t block_tokens, const BlockExtras& extras, KeyMemo* memo,
                 std::vector<uint64_t>& out) {
  LLMD_CHECK(block_tokens > 0);
  const size_t blocks = tokens.size() / block_tokens, begin = out.size();
  out.resize(begin + blocks);
  const std::span<uint64_t> keys = std::span(out).subspan(begin);
  const auto hash = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i)
      keys[i] = hasher.Hash(i == 0 ? init : keys[i - 1],
                            tokens.subspan(i * block_tokens, block_tokens), extras.Of(i));
  };
  size_t at = 0;
  KeyMemo::Name name = memo == nullptr ? KeyMemo::Name() : memo->First(init);
  for (; memo != nullptr && at + KeyMemo::kBlocks <= blocks; at += KeyMemo::kBlocks) {
    const auto segment = keys.subspan(at).first<KeyMemo::kBlocks>();
    name =
        NameSegment(*memo, name, tokens.subspan(at * block_tokens, KeyMemo::kBlocks * block_tokens),
                    at, extras);
    if (memo->Find(name, segment)) continue;
    hash(at, at + KeyMemo::kBlocks);
    memo->Put(name, segment);
  }
  hash(at, blocks);
}

uint64_t PairSeed(std::string_view lora, std::string_view salt) {
  uint64_t seed = kPairSeed;
  if (!lora.empty()) seed += Xxh3(lora.data(), lora.size(), 0);
  if (!salt.empty()) seed += Xxh3(salt.data(), salt.size(), 1);
  return seed;
}

void PairHashes(std::span<const uint32_t> tokens, size_t block_tokens, uint64_t seed,
                std::vector<BlockPair>& out) {
  LLMD_CHECK(block_tokens > 0);
  const size_t begin = out.size();
  for (size_t at = 0; at + block_tokens <= tokens.size(); at += block_tokens) {
    BlockPair pair;
    pair.local = Xxh3(tokens.data() + at, block_tokens * sizeof(uint32_t), seed);
    const uint64_t link[2] = {out.size() == begin ? 0 : out.back().rolling, pair.local};
    pair.rolling = out.size() == begin ? pair.local : Xxh3(link, sizeof(link), kPairSeed);
    out.push_back(pair);
  }
}

}  // namespace llmd::kv
