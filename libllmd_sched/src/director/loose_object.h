// The members of a request body that no parser has read: a JSON object as the most forgiving model
// server would take it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmd/json.h"

namespace llmd::sched {

// A text by which the structure of a body in UTF-8, UTF-16 or UTF-32 (as Python's json module
// detects them, with or without a byte order mark) can be read: byte i of `text` stands for the
// `width` bytes of the body from `offset` + i * `width`. Characters beyond ASCII are placeholders.
struct AsciiView {
  explicit AsciiView(std::string_view body);
  AsciiView(const AsciiView&) = delete;
  AsciiView& operator=(const AsciiView&) = delete;

  std::string_view text;
  size_t width = 1;
  size_t offset = 0;

 private:
  std::string projected_;
};

// The members of the object `text` begins with, in order; nothing checked but brackets and quotes,
// so that NaN, bad numbers and bad UTF-8 hide none. Empty when it begins with no object, or with
// one that does not end.
std::vector<json::ScannedMember> LooseMembers(std::string_view text);

}  // namespace llmd::sched
