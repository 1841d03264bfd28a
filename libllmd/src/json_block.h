// 64 bytes of a JSON text at once, as masks whose bit i speaks of byte i. What is done a byte at a
// time stumbles over every escape, and prompts hold one in every few dozen bytes; this does not.
// Source of the arithmetic: Langdale and Lemire, Parsing Gigabytes of JSON per Second (2019).
#pragma once

#ifdef __SSE2__

#include <emmintrin.h>

#include <cstddef>
#include <cstdint>

namespace llmd::json {

class Block {
 public:
  static constexpr ptrdiff_t kBytes = 64;

  explicit Block(const char* at) {
    for (int i = 0; i < 4; ++i)
      bytes_[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + ptrdiff_t{16} * i));
  }
  uint64_t Equal(char c) const {
    const __m128i wanted = _mm_set1_epi8(c);
    return Mask([&](__m128i b) { return _mm_cmpeq_epi8(b, wanted); });
  }
  // Control characters.
  uint64_t Controls() const {
    const __m128i last = _mm_set1_epi8(0x1F);
    return Mask([&](__m128i b) { return _mm_cmpeq_epi8(_mm_min_epu8(b, last), b); });
  }
  // What may follow a backslash, 'u' apart.
  uint64_t EscapeLetters() const {
    return Mask([](__m128i b) {
      __m128i any = _mm_cmpeq_epi8(b, _mm_set1_epi8('"'));
      for (const char c : {'\\', '/', 'b', 'f', 'n', 'r', 't'})
        any = _mm_or_si128(any, _mm_cmpeq_epi8(b, _mm_set1_epi8(c)));
      return any;
    });
  }

 private:
  template <typename Test>
  uint64_t Mask(const Test& test) const {
    uint64_t mask = 0;
    for (int i = 3; i >= 0; --i)
      mask = mask << 16 | static_cast<uint32_t>(_mm_movemask_epi8(test(bytes_[i])));
    return mask;
  }
  __m128i bytes_[4];
};

// Of a block's backslashes those that begin an escape; the others are what one of these escapes.
// The block's first byte is not escaped.
inline uint64_t EscapeStarts(uint64_t slashes) {
  constexpr uint64_t kOdd = 0xAAAAAAAAAAAAAAAA;
  // Runs of backslashes that begin at an even bit and those that begin at an odd one carry their
  // subtraction to different sides.
  return (((slashes << 1 | kOdd) - slashes) ^ kOdd) & slashes;
}

}  // namespace llmd::json

#endif
