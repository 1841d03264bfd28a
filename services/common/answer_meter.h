// What an answer's body tells while it passes: its tokens, by the usage it carries, else by its
// events. Bytes are looked at once and never parsed as JSON, whatever the borders of their pieces.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmd::services {

// Thread-compatible; used again by Begin. Bounded memory.
class AnswerMeter {
 public:
  // `events`: the answer is an event stream. An `encoded` one is not read.
  void Begin(bool events, bool encoded);
  void Take(std::string_view piece);

  // As the last usage said; -1 = nothing did.
  int64_t prompt_tokens() const { return prompt_tokens_; }
  // The same; of a stream without usage the number of its events that carry data.
  int64_t completion_tokens() const;
  bool estimated() const { return events_on_ && completion_tokens_ < 0 && events_ > 0; }

 private:
  enum class State : uint8_t { kKey, kColon, kValue, kObject };
  void CountEvents(std::string_view piece);
  size_t FindKey(std::string_view piece);
  void Step(char c);
  int64_t* CountOf(std::string_view key);
  size_t Read(std::string_view text);
  size_t ReadWhole(std::string_view rest);

  bool reads_ = false, events_on_ = false;
  State state_ = State::kKey;
  uint8_t matched_ = 0;  // of the key, at the end of the last piece
  uint8_t line_ = 0;     // how far the line of the stream matches "data: ["
  bool in_string_ = false, escaped_ = false;
  int depth_ = 0;
  std::string object_;
  int64_t events_ = 0, prompt_tokens_ = -1, completion_tokens_ = -1;
};

}  // namespace llmd::services
