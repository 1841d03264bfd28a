// Numbers in header values.
#pragma once

#include <charconv>
#include <string_view>

#include "llmd/sched/request_context.h"

namespace llmd::epp {

// The first value of header `name` that begins with a number; 0 when there is none.
template <typename Number>
Number FirstNumber(const sched::HeaderList& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    Number number = 0;
    if (key == name &&
        std::from_chars(value.data(), value.data() + value.size(), number).ec == std::errc())
      return number;
  }
  return 0;
}

}  // namespace llmd::epp
