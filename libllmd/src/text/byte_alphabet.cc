#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"
#include "utf8.h"

namespace llmd::text {
namespace {

constexpr bool StandsForItself(int b) {
  return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
}

struct Alphabet {
  std::array<std::string, 256> spelling;
  std::array<int16_t, 0x144> byte_of;  // by code point, -1 for none

  Alphabet() {
    byte_of.fill(-1);
    uint32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const uint32_t code = StandsForItself(b) ? static_cast<uint32_t>(b) : next++;
      AppendUtf8(spelling[b], code);
      byte_of[code] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

std::string_view ByteSpelling(unsigned char byte) {
  return TheAlphabet().spelling[byte];
}

std::optional<std::string> SpelledBytes(std::string_view token) {
  const Alphabet& alphabet = TheAlphabet();
  std::string bytes;
  const char* const end = token.data() + token.size();
  for (const char* at = token.data(); at < end;) {
    if (!StepUtf8(at, end).valid) return std::nullopt;
    const CodePoint point = DecodeValid(at);
    if (point.code >= alphabet.byte_of.size() || alphabet.byte_of[point.code] < 0)
      return std::nullopt;
    bytes += static_cast<char>(alphabet.byte_of[point.code]);
    at += point.length;
  }
  return bytes;
}

}  // namespace llmd::text
