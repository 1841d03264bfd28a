// The grammar of RFC 8259 over a text in place: what Parse, the scanners and Unquote share. Never
// recurses, never copies.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "llmd/status.h"

namespace llmd::json {

// Walks one text. Each Skip… stands at the first byte of its token, moves behind it and gives true,
// or records the error (reason and offset) and gives false. Thread-compatible.
class Lexer {
 public:
  // With `validated` the text has passed before: only the ends of strings are looked for in them.
  explicit Lexer(std::string_view text, bool validated = false);

  void SkipBlanks() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  bool AtEnd() const { return at_ == end_; }
  // The next byte, '\0' at the end.
  char Peek() const { return at_ == end_ ? '\0' : *at_; }
  // Takes `c` when it is next.
  bool Take(char c) {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  size_t offset() const { return static_cast<size_t>(at_ - begin_); }
  std::string_view From(size_t begin) const { return {begin_ + begin, offset() - begin}; }

  // A string with its quotes; `escaped` tells whether it holds a backslash.
  bool SkipString(bool* escaped);
  // A number; `integral` tells whether it has neither fraction nor exponent.
  bool SkipNumber(bool* integral);
  // true, false or null.
  bool SkipLiteral(std::string_view word);
  // Any value, containers nested at most `max_depth` deep.
  bool SkipValue(size_t max_depth);
  // A key, its colon and the blanks around it.
  bool SkipKey();

  bool Fail(const char* reason) {
    if (!reason_) reason_ = reason;
    return false;
  }
  // "JSON: reason at offset N".
  Status Error() const;

 private:
  bool SkipScalar();
  bool SkipEscape();
  bool FailInString();
  bool SkipValidatedString(bool* escaped);

  const char* begin_;
  const char* at_;
  const char* end_;
  const char* utf8_end_;  // where the text stops being UTF-8; a string must end before
  const bool validated_;
  const char* reason_ = nullptr;
};

}  // namespace llmd::json
