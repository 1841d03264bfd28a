#include "text/bpe.h"

#include <algorithm>

#include "text/byte_alphabet.h"

namespace llmd::text {
namespace {

// Above this many bytes a heap beats looking through all pairs.
constexpr size_t kShortWord = 48;

struct Symbol {
  TokenId id;
  int32_t previous;
  int32_t next;
};

struct Candidate {
  uint32_t rank;
  int32_t position;
  bool operator<(const Candidate& other) const {  // std heaps keep the greatest on top
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

bool IsNormal(const TokenizerSpec& spec, size_t i) {
  return spec.types.empty() || spec.types[i] == TokenType::kNormal;
}

}  // namespace

MergeTable::MergeTable(size_t count) {
  size_t size = 16;
  while (size < count * 2) size *= 2;
  slots_.resize(size);
}

size_t MergeTable::SlotOf(uint64_t key) const {
  const uint64_t hash = key * 0x9E3779B97F4A7C15ull;
  size_t i = (hash ^ hash >> 32) & (slots_.size() - 1);
  while (slots_[i].key != key && slots_[i].key != UINT64_MAX) i = (i + 1) & (slots_.size() - 1);
  return i;
}

void MergeTable::Insert(TokenId left, TokenId right, Merge merge) {
  const uint64_t key = KeyOf(left, right);
  slots_[SlotOf(key)] = {key, merge};
}

MergeTable::Merge MergeTable::Find(TokenId left, TokenId right) const {
  return slots_[SlotOf(KeyOf(left, right))].merge;
}

StatusOr<Bpe> Bpe::Build(const TokenizerSpec& spec, const TokenTable& spelled,
                         const std::vector<std::string>& bytes, bool ignore_merges) {
  Bpe bpe;
  for (int b = 0; b < 256; ++b)
    bpe.byte_ids_[b] = spelled.Find(ByteSpelling(static_cast<unsigned char>(b)));
  LLMD_RETURN_IF_ERROR(bpe.AddMerges(spec, spelled));
  bpe.FindWholeTokens(spec, bytes, ignore_merges);
  return bpe;
}

Status Bpe::AddMerges(const TokenizerSpec& spec, const TokenTable& spelled) {
  merges_ = MergeTable(spec.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string_view merge = spec.merges[rank];
    const size_t blank = merge.find(' ', 1);
    const auto fail = [&](std::string_view why) {
      return InvalidArgument("tokenizer: merge " + std::to_string(rank) + " \"" +
                             std::string(merge) + "\" " + std::string(why));
    };
    if (merge.empty() || blank == std::string_view::npos)
      return fail("is not two tokens with a blank between them");
    const std::string_view left = merge.substr(0, blank), right = merge.substr(blank + 1);
    joined.assign(left).append(right);
    const TokenId left_id = spelled.Find(left), right_id = spelled.Find(right),
                  id = spelled.Find(joined);
    if (left_id < 0 || right_id < 0 || id < 0)
      return fail("names a token that the vocabulary lacks");
    merges_.Insert(left_id, right_id, {static_cast<uint32_t>(rank), id});
  }
  return OkStatus();
}

void Bpe::FindWholeTokens(const TokenizerSpec& spec, const std::vector<std::string>& bytes,
                          bool ignore_merges) {
  whole_ = TokenTable(bytes.size());
  std::vector<TokenId> ids;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (!IsNormal(spec, i) || bytes[i].empty()) continue;
    ids.clear();
    if (!ignore_merges) Merge(bytes[i], ids);
    if (!ignore_merges && !(ids.size() == 1 && ids[0] == static_cast<TokenId>(i))) continue;
    whole_.Insert(bytes[i], static_cast<TokenId>(i));
    longest_whole_ = std::max(longest_whole_, bytes[i].size());
  }
}

void Bpe::EncodeWord(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() <= longest_whole_) {
    if (const TokenId id = whole_.Find(word); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  Merge(word, out);
}

void Bpe::Merge(std::string_view word, std::vector<TokenId>& out) const {
  word.size() <= kShortWord ? MergeShort(word, out) : MergeLong(word, out);
}

void Bpe::MergeShort(std::string_view word, std::vector<TokenId>& out) const {
  TokenId ids[kShortWord];
  MergeTable::Merge pairs[kShortWord];  // pairs[i]: of ids[i] and ids[i + 1]
  size_t count = 0;
  for (const char c : word) {
    if (const TokenId id = byte_ids_[static_cast<uint8_t>(c)]; id >= 0) ids[count++] = id;
  }
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = merges_.Find(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == UINT32_MAX) break;
    ids[best] = pairs[best].id;
    std::copy(ids + best + 2, ids + count, ids + best + 1);
    if (best + 2 < count) std::copy(pairs + best + 2, pairs + count - 1, pairs + best + 1);
    --count;
    if (best > 0) pairs[best - 1] = merges_.Find(ids[best - 1], ids[best]);
    if (best + 1 < count) pairs[best] = merges_.Find(ids[best], ids[best + 1]);
  }
  out.insert(out.end(), ids, ids + count);
}

void Bpe::MergeLong(std::string_view word, std::vector<TokenId>& out) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const TokenId id = byte_ids_[static_cast<uint8_t>(c)];
    const auto at = static_cast<int32_t>(symbols.size());
    if (id >= 0) symbols.push_back({id, at - 1, at + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  std::vector<Candidate> heap;
  const auto rank_at = [&](int32_t at) {
    const int32_t next = symbols[at].next;
    return next < 0 ? UINT32_MAX : merges_.Find(symbols[at].id, symbols[next].id).rank;
  };
  for (int32_t at = 0; at < static_cast<int32_t>(symbols.size()); ++at) {
    if (const uint32_t rank = rank_at(at); rank != UINT32_MAX) heap.push_back({rank, at});
  }
  std::make_heap(heap.begin(), heap.end());
  const auto offer = [&](int32_t at) {
    const uint32_t rank = rank_at(at);
    if (rank == UINT32_MAX) return;
    heap.push_back({rank, at});
    std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.position];
    // Entries whose symbols have since been merged away are left in the heap and passed over here.
    if (left.id < 0 || rank_at(best.position) != best.rank) continue;
    Symbol& right = symbols[left.next];
    left.id = merges_.Find(left.id, right.id).id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = best.position;
    if (left.previous >= 0) offer(left.previous);
    offer(best.position);
  }
  for (int32_t at = 0; at >= 0; at = symbols[at].next) out.push_back(symbols[at].id);
}

}  // namespace llmd::text
