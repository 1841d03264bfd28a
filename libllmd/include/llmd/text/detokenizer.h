// Incremental detokenisation: tokens in, finished UTF-8 text out, never half a character.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/text/tokenizer.h"

namespace llmd::text {

// One per sequence. Thread-compatible; the tokenizer must outlive it.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);
  // The text these tokens complete; "" while a UTF-8 sequence is open. Bytes that can never become
  // valid UTF-8 are given as U+FFFD at once.
  std::string Push(std::span<const TokenId> ids);
  // What an end by length leaves: an incomplete character is dropped.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::string pending_;
};

// Finds stop strings in text that arrives in pieces: holds back what may be the beginning of one.
// The match that completes first wins, ties by list order. Thread-compatible.
class StopMatcher {
 public:
  StopMatcher(std::vector<std::string> stops, bool include_in_output);
  struct Result {
    std::string text;  // safe to send
    int matched = -1;  // index of the stop string found; nothing follows it
  };
  Result Push(std::string_view text);
  // The text still held back, when the sequence ends without a match.
  std::string Finish();

 private:
  std::vector<std::string> stops_;
  bool include_;
  int matched_ = -1;
  std::string held_;
  std::string TakeSafe();
};

}  // namespace llmd::text
