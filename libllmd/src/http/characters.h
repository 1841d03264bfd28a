// Which bytes may stand where in a head (RFC 9110, "Tokens" and "Field Values").
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace llmd::http {

constexpr std::array<bool, 256> MakeTokenTable() {
  std::array<bool, 256> table{};
  for (char c = '0'; c <= '9'; ++c) table[static_cast<uint8_t>(c)] = true;
  for (char c = 'a'; c <= 'z'; ++c) table[static_cast<uint8_t>(c)] = true;
  for (char c = 'A'; c <= 'Z'; ++c) table[static_cast<uint8_t>(c)] = true;
  for (char c : std::string_view("!#$%&'*+-.^_`|~")) table[static_cast<uint8_t>(c)] = true;
  return table;
}
inline constexpr std::array<bool, 256> kToken = MakeTokenTable();

inline bool IsTokenChar(char c) {
  return kToken[static_cast<uint8_t>(c)];
}

// Field content: visible ASCII, blank, tab and bytes above 127.
inline bool IsValueChar(char c) {
  const auto u = static_cast<uint8_t>(c);
  return u == '\t' || (u >= 0x20 && u != 0x7f);
}

// Whether a control character (C0 or DEL) stands in it; eight bytes at a time.
inline bool HoldsControl(std::string_view text) {
  constexpr uint64_t kEach = 0x0101010101010101, kTop = kEach * 0x80;
  const auto any = [](uint64_t x) {
    const uint64_t del = x ^ kEach * 0x7f;
    return (((x - kEach * 0x20) & ~x) | ((del - kEach) & ~del)) & kTop;
  };
  const char* at = text.data();
  size_t left = text.size();
  uint64_t word = 0, found = 0;
  for (; left >= sizeof word; at += sizeof word, left -= sizeof word) {
    std::memcpy(&word, at, sizeof word);
    found |= any(word);
  }
  for (; left > 0; ++at, --left)
    found |= static_cast<uint8_t>(*at) < 0x20 || *at == 0x7f ? kTop : 0;
  return found != 0;
}

}  // namespace llmd::http
