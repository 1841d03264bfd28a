#include "text/case_map.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "text/unicode.h"
#include "utf8.h"

namespace llmd::text {
namespace {

struct CaseRun {
  uint32_t first, last;
  uint32_t step;  // 1, or 2 where every second character is of the other case
  int32_t delta;
};
struct CaseLong {
  uint32_t code;
  uint32_t to[3];  // 0 behind the end
};
struct CaseRange {
  uint32_t first, last;
  uint8_t value;
};

#include "text/case_tables.inc"

constexpr char32_t kSigma = 0x3A3, kFinalSigma = 0x3C2, kSmallSigma = 0x3C3;

uint8_t Look(std::span<const CaseRange> table, char32_t code) {
  const auto after = std::upper_bound(table.begin(), table.end(), code,
                                      [](char32_t c, const CaseRange& r) { return c < r.first; });
  if (after == table.begin()) return 0;
  const CaseRange& range = *std::prev(after);
  return code <= range.last ? range.value : 0;
}

// Appends what `code` becomes; false when the tables leave it as it is.
bool AppendMapped(std::u32string& out, std::span<const CaseRun> runs,
                  std::span<const CaseLong> longs, char32_t code) {
  const auto found = std::lower_bound(longs.begin(), longs.end(), code,
                                      [](const CaseLong& l, char32_t c) { return l.code < c; });
  if (found != longs.end() && found->code == code) {
    for (const uint32_t to : found->to) {
      if (to != 0) out += static_cast<char32_t>(to);
    }
    return true;
  }
  const auto after = std::upper_bound(runs.begin(), runs.end(), code,
                                      [](char32_t c, const CaseRun& r) { return c < r.first; });
  if (after == runs.begin()) return false;
  const CaseRun& run = *std::prev(after);
  if (code > run.last || (code - run.first) % run.step != 0) return false;
  out += static_cast<char32_t>(static_cast<int32_t>(code) + run.delta);
  return true;
}

void AppendLower(std::u32string& out, char32_t code) {
  if (!AppendMapped(out, kLowerRuns, kLowerLong, code)) out += code;
}
void AppendUpper(std::u32string& out, char32_t code) {
  if (!AppendMapped(out, kUpperRuns, kUpperLong, code)) out += code;
}
void AppendTitle(std::u32string& out, char32_t code) {
  if (!AppendMapped(out, kTitleRuns, kTitleLong, code)) AppendUpper(out, code);
}

bool Ignorable(char32_t code) {
  return Look(kCaseIgnorable, code) != 0;
}

// Behind a letter and not before one, not counting marks between.
bool SigmaIsFinal(std::u32string_view text, size_t at) {
  size_t before = at;
  while (before > 0 && Ignorable(text[before - 1])) --before;
  if (before == 0 || CaseOf(text[before - 1]) == Case::kNone) return false;
  size_t after = at + 1;
  while (after < text.size() && Ignorable(text[after])) ++after;
  return after == text.size() || CaseOf(text[after]) == Case::kNone;
}

void AppendLowerAt(std::u32string& out, std::u32string_view text, size_t at) {
  if (text[at] != kSigma) return AppendLower(out, text[at]);
  out += SigmaIsFinal(text, at) ? kFinalSigma : kSmallSigma;
}

}  // namespace

Case CaseOf(char32_t code) {
  return static_cast<Case>(Look(kCased, code));
}

NumberKind NumberKindOf(char32_t code) {
  return static_cast<NumberKind>(Look(kNumeric, code));
}

int DecimalValue(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9' ? static_cast<int>(code - '0') : -1;
  if (NumberKindOf(code) != NumberKind::kDecimal) return -1;
  // Decimal digits come in tens; a range may hold several tens.
  const auto after = std::upper_bound(std::begin(kNumeric), std::end(kNumeric), code,
                                      [](char32_t c, const CaseRange& r) { return c < r.first; });
  return static_cast<int>((code - std::prev(after)->first) % 10);
}

bool IsPrintable(char32_t code) {
  return Look(kNotPrintable, code) == 0;
}

std::u32string Lower(std::u32string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size(); ++i) AppendLowerAt(out, text, i);
  return out;
}

std::u32string Upper(std::u32string_view text) {
  std::u32string out;
  for (const char32_t c : text) AppendUpper(out, c);
  return out;
}

std::u32string CaseFold(std::u32string_view text) {
  std::u32string out;
  for (const char32_t c : text) {
    if (!AppendMapped(out, kFoldRuns, kFoldLong, c)) AppendLower(out, c);
  }
  return out;
}

std::u32string SwapCase(std::u32string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (CaseOf(text[i])) {
      case Case::kUpper:
        AppendLowerAt(out, text, i);
        break;
      case Case::kLower:
        AppendUpper(out, text[i]);
        break;
      default:
        out += text[i];
    }
  }
  return out;
}

std::u32string Capitalize(std::u32string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size(); ++i)
    i == 0 ? AppendTitle(out, text[i]) : AppendLowerAt(out, text, i);
  return out;
}

std::u32string TitleCase(std::u32string_view text) {
  std::u32string out;
  bool in_word = false;
  for (size_t i = 0; i < text.size(); ++i) {
    in_word ? AppendLowerAt(out, text, i) : AppendTitle(out, text[i]);
    in_word = CaseOf(text[i]) != Case::kNone;
  }
  return out;
}

std::u32string ToCodePoints(std::string_view utf8) {
  std::u32string out;
  out.reserve(utf8.size());
  const char* const end = utf8.data() + utf8.size();
  for (const char* at = utf8.data(); at < end;) {
    const Utf8Step step = StepUtf8(at, end);
    out += step.valid ? static_cast<char32_t>(DecodeValid(at).code) : U'\uFFFD';
    at += step.length;
  }
  return out;
}

std::string ToUtf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) AppendUtf8(out, c);
  return out;
}

}  // namespace llmd::text
