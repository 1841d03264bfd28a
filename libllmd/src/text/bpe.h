// The merge step of byte-level BPE: bytes of one word in, token ids out, always the pair of lowest
// rank first, leftmost on ties. Immutable once built, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"
#include "llmd/text/tokenizer.h"
#include "text/token_table.h"

namespace llmd::text {

// (left id, right id) → rank and merged id.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = UINT32_MAX;  // none
    TokenId id = -1;
  };
  explicit MergeTable(size_t count = 0);
  void Insert(TokenId left, TokenId right, Merge merge);  // the later of equal pairs wins, as in HF
  Merge Find(TokenId left, TokenId right) const;

 private:
  static uint64_t KeyOf(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t SlotOf(uint64_t key) const;
  struct Slot {
    uint64_t key = UINT64_MAX;
    Merge merge;
  };
  std::vector<Slot> slots_;
};

class Bpe {
 public:
  // `spelled` finds tokens by their spelling; `bytes[i]` are token i's bytes and must outlive this,
  // types as in the spec. With `ignore_merges` a word that is a token is never split (Llama 3).
  static StatusOr<Bpe> Build(const TokenizerSpec& spec, const TokenTable& spelled,
                             const std::vector<std::string>& bytes, bool ignore_merges);
  // Appends the ids of one word. Bytes without a token are dropped before merging.
  void EncodeWord(std::string_view word, std::vector<TokenId>& out) const;

 private:
  Bpe() = default;
  Status AddMerges(const TokenizerSpec& spec, const TokenTable& spelled);
  void FindWholeTokens(const TokenizerSpec& spec, const std::vector<std::string>& bytes,
                       bool ignore_merges);
  void Merge(std::string_view word, std::vector<TokenId>& out) const;
  void MergeShort(std::string_view word, std::vector<TokenId>& out) const;
  void MergeLong(std::string_view word, std::vector<TokenId>& out) const;

  std::array<TokenId, 256> byte_ids_;
  MergeTable merges_;
  TokenTable whole_;  // words whose merges end in one token: most of a text
  size_t longest_whole_ = 0;
};

}  // namespace llmd::text
