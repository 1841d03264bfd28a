// Character classes and UTF-8 stepping for the tokenizer. Pure functions over immutable tables;
// thread-safe. Classes follow Unicode general categories: letter = L*, number = N*, space = the
// White_Space property.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llmd::text {

enum class CharClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

CharClass ClassOf(uint32_t code);

struct CodePoint {
  uint32_t code = 0;
  uint32_t length = 0;  // bytes
};

// The code point at `at`; the text must be valid UTF-8 and not at its end.
inline CodePoint DecodeValid(const char* at) {
  const auto byte = [at](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(at[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

// One step through bytes that may not be UTF-8.
struct Utf8Step {
  size_t length = 0;  // of the character, or of the maximal invalid subpart (Unicode 3.9, as Rust
                      // and Python replace it)
  bool valid = false;
  bool open = false;  // invalid only because the text ends here
};
Utf8Step StepUtf8(const char* at, const char* end);  // at < end

bool IsValidUtf8(std::string_view text);
// Appends `bytes` with every maximal invalid subpart replaced by U+FFFD.
void AppendLossy(std::string& out, std::string_view bytes);
// Where an unfinished sequence at the end begins; bytes.size() when there is none.
size_t OpenSequenceStart(std::string_view bytes);

}  // namespace llmd::text
