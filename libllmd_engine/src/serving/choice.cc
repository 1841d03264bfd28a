#include "llmd/engine/serving/choice.h"

#include <algorithm>
#include <span>

namespace llmd::engine::serving {
namespace {

openai::TokenLogprob Word(const TokenLogprob& entry, const text::Tokenizer& tokenizer,
                          bool as_ids) {
  openai::TokenLogprob word{"", entry.logprob, "", entry.id, entry.rank};
  if (auto bytes = tokenizer.TokenBytes(entry.id); bytes.ok()) word.bytes = *bytes;
  if (as_ids) {
    word.token = "token_id:" + std::to_string(entry.id);
  } else if (auto text = tokenizer.Decode(std::span(&entry.id, 1), /*skip_special=*/false);
             text.ok()) {
    word.token = std::move(*text);
  }
  return word;
}

}  // namespace

openai::PositionLogprobs LogprobWords(const PositionLogprobs& position,
                                      const text::Tokenizer& tokenizer, bool as_ids) {
  openai::PositionLogprobs words;
  for (size_t i = 0; i < position.size(); ++i) {
    openai::TokenLogprob word = Word(position[i], tokenizer, as_ids);
    if (i == 0) {
      words.chosen = std::move(word);
    } else {
      words.top.push_back(std::move(word));
    }
  }
  return words;
}

std::vector<openai::PositionLogprobs> PromptLogprobWords(const openai::TokenIds& prompt,
                                                         const std::vector<PositionLogprobs>& rest,
                                                         const text::Tokenizer& tokenizer,
                                                         bool as_ids) {
  std::vector<openai::PositionLogprobs> words;
  words.reserve(rest.size() + 1);
  words.push_back({Word({prompt.front(), 0, 0}, tokenizer, as_ids), {}, false});
  for (const PositionLogprobs& position : rest) {
    words.push_back(LogprobWords(position, tokenizer, as_ids));
  }
  return words;
}

Choice::Choice(int index, const openai::CommonRequest& request, const text::Tokenizer& tokenizer)
    : index_(index),
      request_(request),
      tokenizer_(tokenizer),
      detokenizer_(tokenizer, request.skip_special_tokens),
      matcher_(request.stop, request.include_stop_str_in_output) {}

void Choice::Take(TokenId token, bool hide_text, Delta& delta) {
  ++completion_tokens_;
  delta.token_ids.push_back(token);
  if (hide_text) return;
  const std::string text = detokenizer_.Push(std::span(&token, 1));
  if (completion_tokens_ <= request_.min_tokens) {
    delta.text += text;
    return;
  }
  text::StopMatcher::Result result = matcher_.Push(text);
  delta.text += result.text;
  if (result.matched < 0) return;
  finished_ = stopped_by_text_ = true;
  delta.finish_reason = "stop";
  delta.stop_reason = request_.stop[result.matched];
}

void Choice::End(const Output& output, Delta& delta) {
  finished_ = true;
  text::StopMatcher::Result last = matcher_.Push(detokenizer_.Finish());
  delta.text += last.text;
  delta.finish_reason = FinishReasonName(output.finish);
  if (last.matched >= 0) {
    delta.finish_reason = "stop";
    delta.stop_reason = request_.stop[last.matched];
    return;
  }
  delta.text += matcher_.Finish();
  if (output.stop_token) delta.stop_reason = *output.stop_token;
}

Delta Choice::Consume(Output&& output) {
  Delta delta;
  delta.index = index_;
  delta.first = !started_;
  started_ = true;
  if (finished_) return delta;
  // The token that ended the sequence is counted and listed, but its text is not the answer's.
  const bool hides_last =
      output.finish == FinishReason::kStop && !request_.include_stop_str_in_output;
  for (size_t i = 0; i < output.tokens.size() && !finished_; ++i) {
    Take(output.tokens[i], hides_last && i + 1 == output.tokens.size(), delta);
    if (request_.logprobs && i < output.logprobs.size()) {
      delta.logprobs.push_back(
          LogprobWords(output.logprobs[i], tokenizer_, request_.return_tokens_as_token_ids));
    }
  }
  if (output.finish == FinishReason::kNone) return delta;
  // A stop string in the engine's last output: nothing is left to abort.
  if (finished_) {
    stopped_by_text_ = false;
  } else {
    End(output, delta);
  }
  return delta;
}

}  // namespace llmd::engine::serving
