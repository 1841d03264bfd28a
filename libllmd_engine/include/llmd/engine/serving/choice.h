// One choice of a reply: engine outputs in, text deltas out. Detokenises without cutting
// characters, finds stop strings across tokens, and puts log-probabilities into words. Owned by one
// request; thread-compatible.
#pragma once

#include <string>
#include <vector>

#include "llmd/engine/request.h"
#include "llmd/openai/request.h"
#include "llmd/openai/response.h"
#include "llmd/text/detokenizer.h"

namespace llmd::engine::serving {

// What became visible since the last delta.
struct Delta {
  int index = 0;
  bool first = false;  // of its choice
  std::string text;
  openai::TokenIds token_ids;
  std::vector<openai::PositionLogprobs> logprobs;  // one per token when asked for
  std::string finish_reason;                       // "" = goes on
  openai::StopReason stop_reason;
};

class Choice {
 public:
  // `request` and `tokenizer` must outlive it.
  Choice(int index, const openai::CommonRequest& request, const text::Tokenizer& tokenizer);

  // Nothing follows a delta with a finish reason. With kError the caller reports the error and
  // drops the choice.
  Delta Consume(Output&& output);
  bool finished() const { return finished_; }
  // True when a stop string ended the choice while the engine goes on: abort its request.
  bool stopped_by_text() const { return stopped_by_text_; }
  int completion_tokens() const { return completion_tokens_; }

 private:
  void Take(TokenId token, bool hide_text, Delta& delta);
  void End(const Output& output, Delta& delta);

  const int index_;
  const openai::CommonRequest& request_;
  const text::Tokenizer& tokenizer_;
  text::Detokenizer detokenizer_;
  text::StopMatcher matcher_;
  int completion_tokens_ = 0;
  bool started_ = false, finished_ = false, stopped_by_text_ = false;
};

// A position in words. `as_ids` spells tokens "token_id:N".
openai::PositionLogprobs LogprobWords(const PositionLogprobs& position,
                                      const text::Tokenizer& tokenizer, bool as_ids);
// The prompt's positions: its first token, which has none, then `rest`.
std::vector<openai::PositionLogprobs> PromptLogprobWords(const openai::TokenIds& prompt,
                                                         const std::vector<PositionLogprobs>& rest,
                                                         const text::Tokenizer& tokenizer,
                                                         bool as_ids);

}  // namespace llmd::engine::serving
