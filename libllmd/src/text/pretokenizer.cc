#include "text/pretokenizer.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace llmd::text {
namespace {

constexpr std::array<CharClass, 128> MakeAsciiClasses() {
  std::array<CharClass, 128> table{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= 9 && c <= 13);
    table[c] = letter                 ? CharClass::kLetter
               : c >= '0' && c <= '9' ? CharClass::kNumber
               : space                ? CharClass::kSpace
                                      : CharClass::kOther;
  }
  return table;
}
constexpr auto kAsciiClasses = MakeAsciiClasses();

struct Seen {
  CharClass kind;
  uint32_t length;
};

inline Seen Look(const char* at) {
  const auto lead = static_cast<uint8_t>(*at);
  if (lead < 0x80) return {kAsciiClasses[lead], 1};
  const CodePoint point = DecodeValid(at);
  return {ClassOf(point.code), point.length};
}

inline const char* SkipClass(const char* at, const char* end, CharClass kind) {
  while (at < end) {
    const Seen seen = Look(at);
    if (seen.kind != kind) break;
    at += seen.length;
  }
  return at;
}

inline bool IsNewline(char c) {
  return c == '\r' || c == '\n';
}

// The length of a contraction after the apostrophe at `at`, 0 for none. U+017F folds to s, as regex
// engines do it.
size_t ContractionLength(const char* at, const char* end, bool any_case) {
  const auto left = static_cast<size_t>(end - at);
  const auto letter = [&](size_t i) -> char {
    if (i >= left) return 0;
    return any_case && at[i] >= 'A' && at[i] <= 'Z' ? static_cast<char>(at[i] | 0x20) : at[i];
  };
  const char first = letter(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  const char second = letter(2);
  if (second == 'e' && (first == 'r' || first == 'v')) return 3;
  if (first == 'l' && second == 'l') return 3;
  if (any_case && left >= 3 && at[1] == '\xC5' && at[2] == '\xBF') return 3;
  return 0;
}

// \s+(?!\S)|\s+ on a run that ends at `run_end`: the last space is left to the word that follows.
const char* CutSpaceRun(const char* at, const char* run_end, bool followed) {
  if (!followed) return run_end;
  const char* last = run_end - 1;
  while ((static_cast<uint8_t>(*last) & 0xC0) == 0x80) --last;
  return last > at ? last : run_end;
}

template <bool kDigitsApart>
const char* NextGpt2(const char* at, const char* end) {
  if (*at == '\'') {
    if (const size_t n = ContractionLength(at, end, false)) return at + n;
  }
  const Seen first = Look(at);
  if (kDigitsApart && first.kind == CharClass::kNumber) return at + first.length;
  if (*at == ' ' && at + 1 < end) {
    const Seen next = Look(at + 1);
    const bool joins =
        next.kind != CharClass::kSpace && !(kDigitsApart && next.kind == CharClass::kNumber);
    if (joins) return SkipClass(at + 1 + next.length, end, next.kind);
  }
  const char* const run_end = SkipClass(at + first.length, end, first.kind);
  if (first.kind != CharClass::kSpace) return run_end;
  const bool followed =
      run_end < end && !(kDigitsApart && Look(run_end).kind == CharClass::kNumber);
  return CutSpaceRun(at, run_end, followed);
}

const char* SkipNewlines(const char* at, const char* end) {
  while (at < end && IsNewline(*at)) ++at;
  return at;
}

const char* NextDigits(const char* at, const char* end, int most) {
  for (int i = 0; i < most && at < end; ++i) {
    const Seen seen = Look(at);
    if (seen.kind != CharClass::kNumber) break;
    at += seen.length;
  }
  return at;
}

const char* NextSpaces(const char* at, const char* end) {
  const char* const run_end = SkipClass(at, end, CharClass::kSpace);
  for (const char* p = run_end; p > at; --p) {
    if (IsNewline(p[-1])) return p;
  }
  return CutSpaceRun(at, run_end, run_end < end);
}

template <int kMostDigits>
const char* NextLlama3(const char* at, const char* end) {
  if (*at == '\'') {
    if (const size_t n = ContractionLength(at, end, true)) return at + n;
  }
  const Seen first = Look(at);
  if (first.kind == CharClass::kLetter)
    return SkipClass(at + first.length, end, CharClass::kLetter);
  if (first.kind == CharClass::kNumber) return NextDigits(at, end, kMostDigits);
  const char* const second = at + first.length;
  const CharClass next = second < end ? Look(second).kind : CharClass::kSpace;
  if (!IsNewline(*at) && next == CharClass::kLetter)
    return SkipClass(second, end, CharClass::kLetter);
  if (first.kind == CharClass::kOther || (*at == ' ' && next == CharClass::kOther)) {
    return SkipNewlines(SkipClass(second, end, CharClass::kOther), end);
  }
  return NextSpaces(at, end);
}

}  // namespace

std::optional<PreTokenizer> PreTokenizerByName(std::string_view name) {
  if (name == "smollm") return PreTokenizer::kSmollm;
  if (name == "gpt-2") return PreTokenizer::kGpt2;
  if (name == "llama-bpe") return PreTokenizer::kLlama3;
  if (name == "qwen2") return PreTokenizer::kQwen2;
  return std::nullopt;
}

const char* NextWord(PreTokenizer kind, const char* at, const char* end) {
  switch (kind) {
    case PreTokenizer::kGpt2:
      return NextGpt2<false>(at, end);
    case PreTokenizer::kSmollm:
      return NextGpt2<true>(at, end);
    case PreTokenizer::kLlama3:
      return NextLlama3<3>(at, end);
    case PreTokenizer::kQwen2:
      return NextLlama3<1>(at, end);
  }
  return end;
}

}  // namespace llmd::text
