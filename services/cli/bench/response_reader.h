// Reads one answer off a connection as it arrives: the head's few lines that matter, the body's
// framing, and of a stream of events what is measured. Events are counted and timed by looking for
// byte patterns, without JSON and without allocating; only lines that are split between two reads
// are copied, into a buffer that is kept. Thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cli/bench/histogram.h"
#include "http/parser.h"

namespace llmd::bench {

// What an answer said and when; times are the caller's.
struct Answer {
  int status = 0;
  bool event_stream = false;
  bool done_seen = false;   // "data: [DONE]"
  bool error_seen = false;  // an event that is {"error": …}
  bool has_usage = false;
  int64_t first_token = 0, last_token = 0;  // 0 = none came
  uint64_t events = 0, token_events = 0, body_bytes = 0;
  uint64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;  // of usage
};

class ResponseReader {
 public:
  enum class State { kMore, kDone, kBad };
  static constexpr size_t kMaxHead = 64 * 1024, kMaxLine = 1 << 20, kMaxKept = 64 << 20;

  struct Want {
    bool no_body = false;     // the answer to HEAD
    bool usage = false;       // of a body that is no stream
    bool text = false;        // the answer's text, for the next turn
    Histogram* gaps[3] = {};  // where the times between two tokens go; may be null
  };
  // For the next answer.
  void Start(const Want& want);
  // Takes what came off the wire at `now`. kDone once the answer is whole; bytes behind it are
  // kBad, as nothing was asked twice. After kDone and kBad only Start may follow.
  State Feed(std::string_view bytes, int64_t now);
  // The peer closed: kDone where the answer may end so.
  State FeedEnd();

  const Answer& answer() const { return answer_; }
  // A byte has come.
  bool started() const { return started_; }
  bool keep_alive() const { return keep_alive_; }
  // What kBad means.
  const char* error() const { return error_; }
  // The text of the answer as it stands between the quotes of a JSON string; with Want::text.
  const std::string& text() const { return text_; }

 private:
  State Bad(const char* what);
  State Head(std::string_view& bytes);
  bool ParseHead(std::string_view head);
  bool HeadLine(std::string_view line);
  State Body(std::string_view bytes, int64_t now);
  State End();
  bool Piece(std::string_view piece, int64_t now);
  bool Line(std::string_view line, int64_t now);
  void Event(std::string_view data, int64_t now);
  void Token(int64_t now);
  void Usage(std::string_view json);
  void WholeBody();

  Want want_;
  Answer answer_;
  http::BodyDecoder decoder_;
  http::Framing framing_;
  std::string kept_;  // of a head, a line or a body that is not whole yet
  std::string text_;
  const char* error_ = "";
  bool in_body_ = false, started_ = false, keep_alive_ = true;
};

}  // namespace llmd::bench
