// Header lines where they lie: whatever struct the data plane keeps them in, as long as it has a
// `name` and a `value` that are views. Nothing is copied.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "llmd/format.h"

namespace llmd::doors {

struct HeaderLine {
  std::string_view name, value;
};

// Borrows the lines; names compare without regard to case. Cheap to copy.
class HeaderSpan {
 public:
  HeaderSpan() = default;
  template <typename Line>
  HeaderSpan(std::span<const Line> lines) : size_(lines.size()), stride_(sizeof(Line)) {  // NOLINT
    static_assert(std::is_same_v<decltype(Line::name), std::string_view>);
    static_assert(std::is_same_v<decltype(Line::value), std::string_view>);
    if (lines.empty()) return;
    name_ = reinterpret_cast<const char*>(&lines.front().name);
    value_ = reinterpret_cast<const char*>(&lines.front().value);
  }

  size_t size() const { return size_; }
  HeaderLine operator[](size_t i) const {
    return {*reinterpret_cast<const std::string_view*>(name_ + i * stride_),
            *reinterpret_cast<const std::string_view*>(value_ + i * stride_)};
  }
  // The first line of that name.
  std::optional<std::string_view> Get(std::string_view name) const {
    for (size_t i = 0; i < size_; ++i) {
      if (const HeaderLine line = (*this)[i]; EqualsIgnoreCase(line.name, name)) return line.value;
    }
    return std::nullopt;
  }

 private:
  size_t size_ = 0, stride_ = 0;
  const char *name_ = nullptr, *value_ = nullptr;
};

// Sets one header in place of all lines of that name, or removes them.
struct HeaderEdit {
  std::string_view name, value;
  bool remove = false;
};

}  // namespace llmd::doors
