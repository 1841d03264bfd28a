// Width and height of a picture from its first bytes (PNG, JPEG, GIF), without decoding it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace llmd::sched {

struct ImageSize {
  int64_t width = 0, height = 0;  // both above 0
};
// `base64` is the picture in standard base64. Reads at most its first 256 KiB; none for other
// formats, cut headers and broken base64.
std::optional<ImageSize> ImageSizeOf(std::string_view base64);

}  // namespace llmd::sched
