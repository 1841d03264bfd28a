// Where an event stream stands, by its last bytes: at the end of an event, of a line, or within
// one. What breaks it off must begin an event of its own.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace llmd::relay {

class EventTail {
 public:
  void Passed(std::string_view bytes) {
    for (const char c : bytes.substr(bytes.size() > kKept ? bytes.size() - kKept : 0)) {
      last_[0] = last_[1];
      last_[1] = last_[2];
      last_[2] = c;
    }
  }
  // What ends the line and the event that are open.
  std::string_view Closing() const {
    const char a = last_[0], b = last_[1], c = last_[2];
    if (c == '\n' && (b == '\n' || (b == '\r' && a == '\n'))) return {};
    if (c == '\r' && b == '\r') return {};
    // A lone CR may be half a CRLF.
    return c == '\n' ? "\n" : "\n\n";
  }

 private:
  static constexpr size_t kKept = 3;
  std::array<char, kKept> last_ = {'\n', '\n', '\n'};  // nothing yet is the end of an event
};

// How many of the bytes end with a whole line; the rest is one that has only begun.
inline size_t WholeLines(std::string_view bytes) {
  const size_t end = bytes.find_last_of("\r\n");
  return end == std::string_view::npos ? 0 : end + 1;
}

}  // namespace llmd::relay
