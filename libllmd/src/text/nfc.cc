#include "text/nfc.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "text/unicode.h"
#include "utf8.h"

namespace llmd::text {
namespace {

struct Mark {  // combining marks first..last and their canonical combining class
  uint32_t first, last;
  uint8_t rank;
};
struct Split {  // canonical decomposition; `second` is 0 for a character that stands for one other
  uint32_t code, first, second;
};
struct Pair {
  uint32_t first, second, code;
};
struct Range {  // characters that form C may replace, move or join to the one before
  uint32_t first, last;
};
#include "text/nfc_tables.inc"

// Hangul syllables decompose by arithmetic (Unicode 3.12).
constexpr uint32_t kSyllable = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
constexpr uint32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

// The row whose first..last holds `code`, or null.
template <typename Row, size_t kSize>
const Row* RowOf(const Row (&rows)[kSize], uint32_t code) {
  const Row* const row = std::partition_point(std::begin(rows), std::end(rows),
                                              [code](const Row& r) { return r.last < code; });
  return row != std::end(rows) && row->first <= code ? row : nullptr;
}

uint8_t RankOf(uint32_t code) {
  const Mark* const row = RowOf(kMarks, code);
  return row == nullptr ? 0 : row->rank;
}

bool SurelyNormal(std::string_view text) {
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    const CodePoint point = DecodeValid(at);
    if (point.code >= kMaybe[0].first && RowOf(kMaybe, point.code) != nullptr) return false;
    at += point.length;
  }
  return true;
}

struct Ranked {
  uint32_t code;
  uint8_t rank;
};

void Decompose(uint32_t code, std::vector<Ranked>& out) {
  if (const uint32_t index = code - kSyllable; index < kSyllables) {
    out.push_back({kLead + index / (kVowels * kTails), 0});
    out.push_back({kVowel + index / kTails % kVowels, 0});
    if (index % kTails != 0) out.push_back({kTail + index % kTails, 0});
    return;
  }
  const Split* const split = std::partition_point(std::begin(kSplits), std::end(kSplits),
                                                  [code](const Split& s) { return s.code < code; });
  if (split == std::end(kSplits) || split->code != code) {
    out.push_back({code, RankOf(code)});
    return;
  }
  Decompose(split->first, out);  // chains in the table end within four steps
  if (split->second != 0) Decompose(split->second, out);
}

// Marks between two base characters go by rank, equal ones as they came.
void OrderMarks(std::vector<Ranked>& text) {
  const auto is_base = [](const Ranked& c) { return c.rank == 0; };
  for (auto at = text.begin(); at != text.end();) {
    at = std::find_if_not(at, text.end(), is_base);
    const auto end = std::find_if(at, text.end(), is_base);
    std::stable_sort(at, end, [](const Ranked& a, const Ranked& b) { return a.rank < b.rank; });
    at = end;
  }
}

// The character `first` and `second` make together; 0 for none.
uint32_t Compose(uint32_t first, uint32_t second) {
  if (first - kLead < kLeads && second - kVowel < kVowels) {
    return kSyllable + ((first - kLead) * kVowels + second - kVowel) * kTails;
  }
  const uint32_t index = first - kSyllable;
  if (index < kSyllables && index % kTails == 0 && second - kTail - 1 < kTails - 1) {
    return first + second - kTail;
  }
  const std::pair key(first, second);
  const Pair* const pair =
      std::partition_point(std::begin(kPairs), std::end(kPairs),
                           [&key](const Pair& p) { return std::pair(p.first, p.second) < key; });
  const bool found = pair != std::end(kPairs) && std::pair(pair->first, pair->second) == key;
  return found ? pair->code : 0;
}

void ComposeAll(std::vector<Ranked>& text) {
  constexpr size_t kNone = SIZE_MAX;
  size_t kept = 0, base = kNone;
  for (const Ranked c : text) {
    const bool adjacent = base != kNone && kept == base + 1;
    const bool blocked = !adjacent && (base == kNone || text[kept - 1].rank >= c.rank);
    if (const uint32_t made = blocked ? 0 : Compose(text[base].code, c.code)) {
      text[base].code = made;
      continue;
    }
    if (c.rank == 0) base = kept;
    text[kept++] = c;
  }
  text.resize(kept);
}

}  // namespace

std::string_view Nfc(std::string_view text, std::string& scratch) {
  if (SurelyNormal(text)) return text;
  std::vector<Ranked> points;
  points.reserve(text.size());
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    const CodePoint point = DecodeValid(at);
    Decompose(point.code, points);
    at += point.length;
  }
  OrderMarks(points);
  ComposeAll(points);
  scratch.clear();
  for (const Ranked& c : points) AppendUtf8(scratch, c.code);
  return scratch;
}

}  // namespace llmd::text
