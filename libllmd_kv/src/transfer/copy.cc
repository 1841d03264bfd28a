#include "transfer/copy.h"

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace llmd::kv {

#if defined(__SSE2__)
namespace {
constexpr size_t kStreamFromBytes = 16 * 1024;
constexpr size_t kPrefetchBytes = 1024;

bool Aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 64 == 0;
}

void StreamLine(std::byte* to, const std::byte* from) {
  const auto* in = reinterpret_cast<const __m128i*>(from);
  auto* out = reinterpret_cast<__m128i*>(to);
  const __m128i a = _mm_load_si128(in), b = _mm_load_si128(in + 1), c = _mm_load_si128(in + 2),
                d = _mm_load_si128(in + 3);
  _mm_stream_si128(out, a);
  _mm_stream_si128(out + 1, b);
  _mm_stream_si128(out + 2, c);
  _mm_stream_si128(out + 3, d);
}
}  // namespace

void CopyBlock(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes < kStreamFromBytes || !Aligned(to) || !Aligned(from)) {
    std::memcpy(to, from, bytes);
    return;
  }
  const size_t lines = bytes / 64 * 64;
  for (size_t i = 0; i < lines; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kPrefetchBytes), _MM_HINT_NTA);
    StreamLine(to + i, from + i);
  }
  std::memcpy(to + lines, from + lines, bytes - lines);
  _mm_sfence();
}
#else
void CopyBlock(std::byte* to, const std::byte* from, size_t bytes) {
  std::memcpy(to, from, bytes);
}
#endif

}  // namespace llmd::kv
