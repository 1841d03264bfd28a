// Which bytes may stand where in a head (RFC 9110, "Tokens" and "Field Values").
#pragma once

#include <array>
#include <cstdint>
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

}  // namespace llmd::http
