#include "plugins/session.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace llmd::sched {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> Values() {
  std::array<int8_t, 256> out{};
  out.fill(-1);
  for (size_t i = 0; i < kDigits.size(); ++i)
    out[static_cast<unsigned char>(kDigits[i])] = static_cast<int8_t>(i);
  return out;
}
constexpr std::array<int8_t, 256> kValues = Values();

}  // namespace

std::string_view SessionSource::Read(const RequestContext& request) const {
  if (!header.empty()) return request.Header(header);
  std::string_view rest = request.Header("cookie");
  while (!rest.empty()) {
    const size_t semicolon = rest.find(';');
    std::string_view pair = rest.substr(0, semicolon);
    rest = semicolon == std::string_view::npos ? std::string_view() : rest.substr(semicolon + 1);
    while (pair.starts_with(' ')) pair.remove_prefix(1);
    if (pair.size() > cookie.size() && pair.starts_with(cookie) && pair[cookie.size()] == '=') {
      return pair.substr(cookie.size() + 1);
    }
  }
  return {};
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
  });
  return text;
}

std::string Base64(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k)
      word = word << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

bool FromBase64(std::string_view text, std::string& bytes) {
  bytes.clear();
  if (text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  const std::string_view digits = text.substr(0, text.size() - padding);
  uint32_t word = 0;
  for (size_t i = 0; i < digits.size(); ++i) {
    const int value = kValues[static_cast<unsigned char>(digits[i])];
    if (value < 0) return false;
    word = word << 6 | static_cast<uint32_t>(value);
    if (i % 4 != 0) bytes += static_cast<char>(word >> (6 - 2 * (i % 4)) & 255);
  }
  // Bits of the last digit that say nothing must be zero: every name has one token.
  return padding == 0 || (word & (padding == 1 ? 3U : 15U)) == 0;
}

}  // namespace llmd::sched
