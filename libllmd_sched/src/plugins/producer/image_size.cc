#include "plugins/producer/image_size.h"

#include <algorithm>
#include <string>

namespace llmd::sched {
namespace {

// JPEG headers may hold a preview and colour profiles before the size.
constexpr size_t kMaxBase64 = 256 << 10;

int ValueOf(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

std::string Decode(std::string_view base64) {
  std::string out;
  uint32_t bits = 0;
  int have = 0;
  for (char c : base64.substr(0, kMaxBase64)) {
    if (c == '\n' || c == '\r') continue;
    const int value = ValueOf(c);
    if (value < 0) break;
    bits = bits << 6 | static_cast<uint32_t>(value);
    have += 6;
    if (have < 8) continue;
    have -= 8;
    out += static_cast<char>(bits >> have);
  }
  return out;
}

int64_t Big(std::string_view s, size_t at, size_t count) {
  int64_t out = 0;
  for (size_t i = at; i < at + count; ++i) out = out << 8 | static_cast<unsigned char>(s[i]);
  return out;
}

std::optional<ImageSize> Valid(int64_t width, int64_t height) {
  if (width <= 0 || height <= 0) return std::nullopt;
  return ImageSize{width, height};
}

std::optional<ImageSize> Png(std::string_view s) {
  if (s.size() < 24 || s.substr(12, 4) != "IHDR") return std::nullopt;
  return Valid(Big(s, 16, 4), Big(s, 20, 4));
}

std::optional<ImageSize> Gif(std::string_view s) {
  if (s.size() < 10) return std::nullopt;
  const auto little = [&](size_t at) {
    return static_cast<unsigned char>(s[at]) | static_cast<unsigned char>(s[at + 1]) << 8;
  };
  return Valid(little(6), little(8));
}

// Walks the segments to the start of frame, which says the size.
std::optional<ImageSize> Jpeg(std::string_view s) {
  for (size_t at = 2; at + 9 <= s.size();) {
    if (static_cast<unsigned char>(s[at]) != 0xff) return std::nullopt;
    const auto marker = static_cast<unsigned char>(s[at + 1]);
    if (marker == 0xff) {  // padding
      ++at;
      continue;
    }
    const bool frame =
        marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) return Valid(Big(s, at + 7, 2), Big(s, at + 5, 2));
    if (marker == 0xd9 || marker == 0xda) return std::nullopt;  // data without a frame
    at += 2 + static_cast<size_t>(std::max<int64_t>(Big(s, at + 2, 2), 2));
  }
  return std::nullopt;
}

}  // namespace

std::optional<ImageSize> ImageSizeOf(std::string_view base64) {
  // Long prompts repeat pictures; the head says the format, and only JPEG needs more of it.
  std::string head = Decode(base64.substr(0, 64));
  if (head.starts_with("\x89PNG\r\n\x1a\n")) return Png(head);
  if (head.starts_with("GIF8")) return Gif(head);
  if (head.starts_with("\xff\xd8")) return Jpeg(Decode(base64));
  return std::nullopt;
}

}  // namespace llmd::sched
