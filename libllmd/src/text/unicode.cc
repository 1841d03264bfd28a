#include "text/unicode.h"

#include <cstring>

#include "utf8.h"

namespace llmd::text {
namespace {
#include "text/unicode_tables.inc"

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool SecondByteFits(uint8_t lead, uint8_t second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return (second & 0xC0) == 0x80;
  }
}

size_t SequenceLength(uint8_t lead) {
  return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

}  // namespace

CharClass ClassOf(uint32_t code) {
  if (code >= 0x110000) return CharClass::kOther;
  const uint64_t word = kClassWords[kBlockOf[code >> 8] * 8 + ((code >> 5) & 7)];
  return static_cast<CharClass>(word >> ((code & 31) * 2) & 3);
}

Utf8Step StepUtf8(const char* at, const char* end) {
  if (const size_t n = Utf8Length(at, end)) return {n, true, false};
  const auto lead = static_cast<uint8_t>(*at);
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t need = SequenceLength(lead);
  const auto left = static_cast<size_t>(end - at);
  size_t i = 1;
  for (; i < need && i < left; ++i) {
    const auto byte = static_cast<uint8_t>(at[i]);
    if (i == 1 ? !SecondByteFits(lead, byte) : (byte & 0xC0) != 0x80) return {i, false, false};
  }
  return {i, false, true};
}

bool IsValidUtf8(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    uint64_t word;
    if (end - at >= 8 && (std::memcpy(&word, at, 8), (word & 0x8080808080808080ull) == 0)) {
      at += 8;
      continue;
    }
    const size_t n = Utf8Length(at, end);
    if (n == 0) return false;
    at += n;
  }
  return true;
}

void AppendLossy(std::string& out, std::string_view bytes) {
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  while (at < end) {
    const Utf8Step step = StepUtf8(at, end);
    out.append(step.valid ? std::string_view(at, step.length) : kReplacement);
    at += step.length;
  }
}

size_t OpenSequenceStart(std::string_view bytes) {
  const size_t look = bytes.size() < 3 ? bytes.size() : 3;
  for (size_t back = 1; back <= look; ++back) {
    const size_t at = bytes.size() - back;
    if ((static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80) continue;
    const Utf8Step step = StepUtf8(bytes.data() + at, bytes.data() + bytes.size());
    return step.open ? at : bytes.size();
  }
  return bytes.size();
}

}  // namespace llmd::text
