#include "json_unescape.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "json_block.h"
#include "llmd/json.h"
#include "utf8.h"

namespace llmd::json {
namespace {

#ifdef __SSE2__
// Bit i: byte i of these 16 is a backslash, or with `quotes` a quote.
uint32_t Slashes(__m128i bytes, bool quotes) {
  __m128i found = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
  if (quotes) found = _mm_or_si128(found, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
  return static_cast<uint32_t>(_mm_movemask_epi8(found));
}
#endif

// Copies up to the next backslash or the end; writes up to 15 bytes more than it moves `out`.
const char* CopyPlain(const char* at, const char* end, char*& out) {
#ifdef __SSE2__
  while (end - at >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    const uint32_t slashes = Slashes(bytes, false);
    if (slashes != 0) {
      out += std::countr_zero(slashes);
      return at + std::countr_zero(slashes);
    }
    at += 16;
    out += 16;
  }
#endif
  while (at != end && *at != '\\') *out++ = *at++;
  return at;
}

uint32_t Hex(char c) {
  if (c <= '9') return static_cast<uint32_t>(c - '0');
  return static_cast<uint32_t>((c | 0x20) - 'a' + 10);
}

uint32_t ReadHex4(const char* at) {
  return Hex(at[0]) << 12 | Hex(at[1]) << 8 | Hex(at[2]) << 4 | Hex(at[3]);
}

// Decodes the \u escape whose digits start at `at`, pairing surrogates; gives where it ends.
const char* DecodeUnicodeEscape(const char* at, const char* end, char*& out) {
  uint32_t code = ReadHex4(at);
  at += 4;
  if (code >= 0xD800 && code < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
    const uint32_t low = ReadHex4(at + 2);
    if (low >= 0xDC00 && low < 0xE000) {
      out = PutUtf8(out, 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00));
      return at + 6;
    }
  }
  out = PutUtf8(out, code >= 0xD800 && code < 0xE000 ? 0xFFFD : code);
  return at;
}

// By the letter behind the backslash: a quote, a slash and a backslash mean themselves.
constexpr auto kUnescaped = [] {
  std::array<char, 256> table{};
  for (size_t c = 0; c < table.size(); ++c) table[c] = static_cast<char>(c);
  table['n'] = '\n';
  table['t'] = '\t';
  table['r'] = '\r';
  table['b'] = '\b';
  table['f'] = '\f';
  return table;
}();

char Unescaped(char letter) {
  return kUnescaped[static_cast<unsigned char>(letter)];
}

// Undoes the escape whose backslash is at `at`; gives where it ends.
const char* UnescapeOne(const char* at, const char* end, char*& out) {
  if (at[1] == 'u') return DecodeUnicodeEscape(at + 2, end, out);
  *out++ = Unescaped(at[1]);
  return at + 2;
}

#ifdef __SSE2__
// Copies `size` bytes in steps of 16: reads and writes up to 15 more.
void CopySteps(const char* from, size_t size, char* to) {
  for (size_t i = 0; i < size; i += 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
}

// Undoes the escapes that begin in the block at `at`, which does not begin within one; gives where
// the next begins. A step of 16 bytes can be read behind the block.
const char* UnescapeBlock(const char* at, const char* end, char*& out) {
  size_t done = 0;
  for (uint64_t starts = EscapeStarts(Block(at).Equal('\\')); starts != 0; starts &= starts - 1) {
    const auto slash = static_cast<size_t>(std::countr_zero(starts));
    CopySteps(at + done, slash - done, out);
    out += slash - done;
    if (at[slash + 1] == 'u') return DecodeUnicodeEscape(at + slash + 2, end, out);
    *out++ = Unescaped(at[slash + 1]);
    done = slash + 2;
  }
  if (done < Block::kBytes) {
    CopySteps(at + done, Block::kBytes - done, out);
    out += Block::kBytes - done;
    done = Block::kBytes;
  }
  return at + done;
}
#endif

}  // namespace

const char* FindQuoteOrSlash(const char* at, const char* end) {
#ifdef __SSE2__
  for (; end - at >= 16; at += 16) {
    const uint32_t found = Slashes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), true);
    if (found != 0) return at + std::countr_zero(found);
  }
#endif
  while (at != end && *at != '"' && *at != '\\') ++at;
  return at;
}

size_t UnescapeTo(std::string_view inner, char* out) {
  char* const begin = out;
  const char* at = inner.data();
  const char* const end = at + inner.size();
#ifdef __SSE2__
  while (end - at >= Block::kBytes + ptrdiff_t{kUnescapeSlack}) at = UnescapeBlock(at, end, out);
#endif
  while ((at = CopyPlain(at, end, out)) != end) at = UnescapeOne(at, end, out);
  return static_cast<size_t>(out - begin);
}

std::string DecodeString(std::string_view quoted, bool escaped) {
  const std::string_view body = quoted.substr(1, quoted.size() - 2);
  if (!escaped) return std::string(body);
  std::string out(body.size() + kUnescapeSlack, '\0');
  out.resize(UnescapeTo(body, out.data()));
  return out;
}

}  // namespace llmd::json
