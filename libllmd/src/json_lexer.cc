#include "json_lexer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "json_block.h"
#include "json_unescape.h"
#include "utf8.h"

namespace llmd::json {
namespace {

// Which bytes may follow a backslash, 'u' apart.
constexpr auto kEscapes = [] {
  std::array<bool, 256> table{};
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'})
    table[static_cast<unsigned char>(c)] = true;
  return table;
}();

// A plain run ends at a quote, a backslash or a control character.
bool EndsPlain(char c) {
  return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
}

#ifdef __SSE2__
constexpr ptrdiff_t kStepBytes = 16;

// The offset of the first byte of these 16 that ends a plain run, or 16.
int FirstSpecial(const char* at) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  const __m128i quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
  const __m128i slashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
  const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
  const int mask = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, slashes), low));
  return std::countr_zero(static_cast<uint32_t>(mask) | 0x10000U);
}
#else
constexpr ptrdiff_t kStepBytes = 8;
constexpr uint64_t kOnes = 0x0101010101010101;
constexpr uint64_t kHighs = 0x8080808080808080;

// Bytes of `word` that are zero get their high bit; only the lowest set bit is certain, which is
// the one used.
constexpr uint64_t ZeroBytes(uint64_t word) {
  return (word - kOnes) & ~word & kHighs;
}

// The same in one word of eight.
int FirstSpecial(const char* at) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t word;
  std::memcpy(&word, at, sizeof(word));
  const uint64_t special = ZeroBytes(word ^ (kOnes * '"')) | ZeroBytes(word ^ (kOnes * '\\')) |
                           ((word - kOnes * 0x20) & ~word & kHighs);
  return std::countr_zero(special) / 8;
}
#endif

const char* SkipPlain(const char* at, const char* end) {
  while (end - at >= kStepBytes) {
    const int special = FirstSpecial(at);
    // Not `at += special` for both: the predicted branch lets the next load start early.
    if (special < kStepBytes) return at + special;
    at += kStepBytes;
  }
  while (at != end && !EndsPlain(*at)) ++at;
  return at;
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

#ifdef __SSE2__
// Of the bytes `us` of a block, each the 'u' of an escape, those that four hex digits follow.
uint64_t WithHexDigits(const char* block, const char* end, uint64_t us) {
  uint64_t good = 0;
  for (; us != 0; us &= us - 1) {
    const char* const digits = block + std::countr_zero(us) + 1;
    if (end - digits < 4) return good;
    if (std::all_of(digits, digits + 4, [](char c) { return HexValue(c) >= 0; })) good |= us & -us;
  }
  return good;
}

// From a backslash on, over blocks that hold nothing but text and good escapes. Gives the string's
// closing quote, or the first byte that needs a closer look: never one within an escape, and of a
// bad escape its backslash. `checked`: the text is known to be good.
const char* SkipEscapes(const char* at, const char* end, bool checked) {
  while (end - at >= Block::kBytes) {
    const Block block(at);
    const uint64_t starts = EscapeStarts(block.Equal('\\')), escaped = starts << 1;
    const uint64_t quotes = block.Equal('"') & ~escaped;
    if (!checked) {
      const uint64_t inside = quotes == 0 ? ~uint64_t{0} : (quotes & -quotes) - 1;
      uint64_t doubtful = block.Controls();
      if (escaped != 0) doubtful |= escaped & ~block.EscapeLetters();
      doubtful &= inside;
      if (doubtful != 0) doubtful &= ~WithHexDigits(at, end, doubtful & escaped & block.Equal('u'));
      if (doubtful != 0) {
        const int first = std::countr_zero(doubtful);
        return at + first - static_cast<ptrdiff_t>(escaped >> first & 1);
      }
    }
    if (quotes != 0) return at + std::countr_zero(quotes);
    // The next block begins at no escaped byte.
    at += Block::kBytes - static_cast<ptrdiff_t>(starts >> 63);
  }
  return at;
}
#else
const char* SkipEscapes(const char* at, const char*, bool) {
  return at;
}
#endif

// Which containers are open, one bit each.
class OpenStack {
 public:
  size_t depth() const { return depth_; }
  void Push(bool object) {
    if (depth_ % 64 == 0 && depth_ / 64 > more_.size()) more_.push_back(0);
    uint64_t& word = Word(depth_);
    const uint64_t bit = uint64_t{1} << (depth_ % 64);
    word = object ? (word | bit) : (word & ~bit);
    ++depth_;
  }
  void Pop() { --depth_; }
  bool InObject() { return (Word(depth_ - 1) >> ((depth_ - 1) % 64)) & 1; }

 private:
  uint64_t& Word(size_t level) { return level < 64 ? first_ : more_[level / 64 - 1]; }
  size_t depth_ = 0;
  uint64_t first_ = 0;
  std::vector<uint64_t> more_;
};

}  // namespace

Lexer::Lexer(std::string_view text, bool validated)
    : begin_(text.data()),
      at_(begin_),
      end_(begin_ + text.size()),
      utf8_end_(end_),
      validated_(validated) {
  if (validated || IsUtf8(text)) return;
  utf8_end_ = begin_;
  while (const size_t length = Utf8Length(utf8_end_, end_)) utf8_end_ += length;
}

bool Lexer::FailInString() {
  return Fail(at_ == end_ ? "unterminated string" : "invalid UTF-8");
}

bool Lexer::SkipEscape() {
  ++at_;
  if (at_ == utf8_end_) return FailInString();
  if (*at_ != 'u') {
    if (!kEscapes[static_cast<unsigned char>(*at_)]) return Fail("invalid escape");
    ++at_;
    return true;
  }
  ++at_;
  for (int i = 0; i < 4; ++i, ++at_) {
    if (at_ == end_ || HexValue(*at_) < 0) return Fail("invalid \\u escape");
  }
  return true;
}

bool Lexer::SkipString(bool* escaped) {
  *escaped = false;
  if (!Take('"')) return Fail("expected a string");
  if (validated_) return SkipValidatedString(escaped);
  while (true) {
    at_ = SkipPlain(at_, utf8_end_);
    if (at_ == utf8_end_) return FailInString();
    if (*at_ == '"') {
      ++at_;
      return true;
    }
    if (*at_ != '\\') return Fail("control character in a string");
    *escaped = true;
    const char* const next = SkipEscapes(at_, utf8_end_, false);
    if (next == at_ && !SkipEscape()) return false;
    at_ = std::max(at_, next);
  }
}

bool Lexer::SkipValidatedString(bool* escaped) {
  while ((at_ = FindQuoteOrSlash(at_, end_)) != end_) {
    if (*at_ == '"') {
      ++at_;
      return true;
    }
    *escaped = true;
    const char* const next = SkipEscapes(at_, end_, true);
    at_ = next > at_ ? next : std::min(at_ + 2, end_);
  }
  return Fail("unterminated string");
}

bool Lexer::SkipNumber(bool* integral) {
  *integral = true;
  Take('-');
  if (!IsDigit(Peek())) return Fail("invalid number");
  if (!Take('0')) {
    while (IsDigit(Peek())) ++at_;
  }
  if (IsDigit(Peek())) return Fail("a number must not start with 0");
  if (Take('.')) {
    *integral = false;
    if (!IsDigit(Peek())) return Fail("expected a digit after the point");
    while (IsDigit(Peek())) ++at_;
  }
  if (Peek() == 'e' || Peek() == 'E') {
    *integral = false;
    ++at_;
    if (Peek() == '+' || Peek() == '-') ++at_;
    if (!IsDigit(Peek())) return Fail("expected a digit in the exponent");
    while (IsDigit(Peek())) ++at_;
  }
  return true;
}

bool Lexer::SkipLiteral(std::string_view word) {
  if (static_cast<size_t>(end_ - at_) < word.size() || std::string_view(at_, word.size()) != word) {
    return Fail("expected a value");
  }
  at_ += word.size();
  return true;
}

bool Lexer::SkipScalar() {
  bool unused = false;
  switch (Peek()) {
    case '"':
      return SkipString(&unused);
    case 't':
      return SkipLiteral("true");
    case 'f':
      return SkipLiteral("false");
    case 'n':
      return SkipLiteral("null");
    default:
      if (Peek() == '-' || IsDigit(Peek())) return SkipNumber(&unused);
      return Fail(AtEnd() ? "unexpected end" : "expected a value");
  }
}

bool Lexer::SkipKey() {
  bool unused = false;
  if (Peek() != '"') return Fail("expected a key in quotes");
  if (!SkipString(&unused)) return false;
  SkipBlanks();
  if (!Take(':')) return Fail("expected ':' after a key");
  SkipBlanks();
  return true;
}

bool Lexer::SkipValue(size_t max_depth) {
  OpenStack open;
  while (true) {
    const char c = Peek();
    if (c == '{' || c == '[') {
      if (open.depth() >= max_depth) return Fail("nested too deeply");
      open.Push(c == '{');
      ++at_;
      SkipBlanks();
      if (Peek() != (c == '{' ? '}' : ']')) {
        if (c == '{' && !SkipKey()) return false;
        continue;
      }
    } else if (!SkipScalar()) {
      return false;
    }
    // Behind a value, or at the closer of an empty container: close what ends here, then go to the
    // next value.
    while (true) {
      if (open.depth() == 0) return true;
      SkipBlanks();
      if (Take(open.InObject() ? '}' : ']')) {
        open.Pop();
        continue;
      }
      if (!Take(',')) return Fail(open.InObject() ? "expected ',' or '}'" : "expected ',' or ']'");
      SkipBlanks();
      if (open.InObject() && !SkipKey()) return false;
      break;
    }
  }
}

Status Lexer::Error() const {
  return InvalidArgument(std::string("JSON: ") + (reason_ ? reason_ : "invalid") + " at offset " +
                         std::to_string(offset()));
}

}  // namespace llmd::json
