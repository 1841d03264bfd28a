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
  // For another stream.
  void Reset() {
    state_ = State::kSearch;
    matched_ = 0;
    object_.clear();
    depth_ = 0;
    in_string_ = escaped_ = false;
  }

 private:
  enum class State { kSearch, kColon, kValue, kObject };
  size_t Search(std::string_view text);
  void Step(char c);
  size_t Object(std::string_view text, const std::function<void(std::string_view object)>& found);
  State state_ = State::kSearch;
  size_t matched_ = 0;  // bytes of the key seen
  std::string object_;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

// Puts the client's model name back: replaces the value of "model" that means `from`, however its
// characters are escaped and wherever blanks stand, by `to`. Only where an answer names its model:
// at the top level of a JSON document (or one of several), or of one event of an event stream, and
// in the object that its "message" or "response" holds. Bounded memory.
class ModelRestorer {
 public:
  ModelRestorer(std::string_view from, std::string_view to);
  // The bytes to pass on; holds back at most one name until the next call, nothing when `end`.
  std::string Feed(std::string_view chunk, bool end);

 private:
  enum class Text { kUnknown, kJson, kEvents };  // what the answer is, by its first bytes
  enum class Line { kStart, kData, kOther };     // of an event stream
  enum class In { kNothing, kString, kKey, kName };
  void Step(char c, std::string& out);
  // Of an event stream: whether `c` belongs to an event's data.
  bool IsData(char c, std::string& out);
  void Json(char c, std::string& out);
  void JsonString(char c, std::string& out);
  void Open(char c);
  void BeginString();
  void BreakString(std::string& out);
  void EndName(std::string& out);
  bool names_model() const { return (depth_ == 1 && object_) || (depth_ == 2 && inner_); }

  const std::string from_, to_;  // `to_` is quoted
  const size_t longest_;         // of a quoted name that may mean `from_`
  Text text_ = Text::kUnknown;
  Line line_ = Line::kStart;
  std::string field_;  // of the line, while it is short
  char last_ = '\n';   // of the stream
  In in_ = In::kNothing;
  bool escaped_ = false;
  size_t depth_ = 0;
  bool object_ = false, inner_ = false;  // what the first two levels are
  bool after_colon_ = false;
  std::string key_;   // the last one where a model may be named, while it is short
  std::string held_;  // of a name, from its quote on
};

}  // namespace llmd::sched
