// The lines that a head's Connection lines name: they concern one connection and do not go on
// (RFC 9110 §7.6.1). Read once a head, without allocation. Thread-compatible.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "llmd/http/head_view.h"

namespace llmd::http {

class ConnectionNames {
 public:
  // Heads that name more are refused where they are read (ReadRequestHead, ReadResponseHead).
  static constexpr size_t kMax = 16;
  // The names are views into the head.
  explicit ConnectionNames(const HeaderLines& headers);
  bool Contain(std::string_view name) const;
  // What one Connection line's value adds to the names; "close" and "keep-alive" are no lines.
  static size_t CountIn(std::string_view value);

 private:
  std::array<std::string_view, kMax> names_;
  size_t count_ = 0;
};

}  // namespace llmd::http
