// Fixed-width lower-case hexadecimal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmd {

inline char HexDigit(uint64_t v) {
  return "0123456789abcdef"[v & 0xF];
}

// The low `digits` hexadecimal digits of `v`, at most 16.
inline void AppendHex(std::string& out, uint64_t v, int digits) {
  char text[16];
  for (int i = digits; i-- > 0; v >>= 4) text[i] = HexDigit(v);
  out.append(text, static_cast<size_t>(digits));
}

// All of `text` as at most 16 lower-case digits; false for anything else.
inline bool ReadHex(std::string_view text, uint64_t* out) {
  if (text.empty() || text.size() > 16) return false;
  *out = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      *out = *out << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      *out = *out << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace llmd
