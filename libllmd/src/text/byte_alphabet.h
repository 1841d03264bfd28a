// GPT-2's byte-level alphabet: every byte as one printable character. Bytes 33–126, 161–172 and
// 174–255 stand for themselves, the other 68 are U+0100 onwards in order. Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llmd::text {

// The character of a byte, as UTF-8.
std::string_view ByteSpelling(unsigned char byte);
// The bytes a token spells; nullopt when a character is not in the alphabet.
std::optional<std::string> SpelledBytes(std::string_view token);

}  // namespace llmd::text
