// Reads an answer as it passes, whatever its chunk borders: finds usage objects, and puts the
// client's model name back.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace llmd::sched {

// Finds each `"usage": {…}` in a byte stream (one JSON document or SSE events). Bounded memory.
class UsageScanner {
 public:
  // Calls `found` with each whole object. Inside JSON strings the key is escaped, so text cannot
  // fake it.
  void Feed(std::string_view chunk, const std::function<void(std::string_view object)>& found);

 private:
  enum class State { kSearch, kColon, kValue, kObject };
  void Step(char c, const std::function<void(std::string_view object)>& found);
  State state_ = State::kSearch;
  size_t matched_ = 0;  // bytes of the key seen
  std::string object_;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

// Replaces each `"model":"from"` (blanks allowed after the colon) by the same with `to`.
class ModelRestorer {
 public:
  ModelRestorer(std::string_view from, std::string_view to);
  // The bytes to pass on; holds back at most a partial match until the next call, nothing when
  // `end`.
  std::string Feed(std::string_view chunk, bool end);

 private:
  // Bytes of a match at `at`; 0 = none; npos = the text ends inside a possible one.
  size_t Match(std::string_view text, size_t at) const;
  std::string from_, to_;  // quoted
  std::string held_;
};

}  // namespace llmd::sched
