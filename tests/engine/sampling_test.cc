#include "llmd/engine/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace llmd::engine {
namespace {

TEST(Validate, AcceptsDefaultsAndEdges) {
  SamplingParams p;
  EXPECT_TRUE(Validate(p, 100).ok());
  p.top_k = -1;
  p.top_p = 1e-9f;
  p.min_p = 1;
  p.temperature = 0;
  p.presence_penalty = -2;
  p.frequency_penalty = 2;
  p.min_tokens = p.max_tokens;
  p.logprobs = -1;
  p.prompt_logprobs = 0;
  p.logit_bias = {{99, -100.0f}};
  p.stop_token_ids = {100000};
  EXPECT_TRUE(Validate(p, 100).ok());
}

TEST(Validate, NamesFieldAndValueOfWhatIsOutOfRange) {
  struct Case {
    std::function<void(SamplingParams&)> spoil;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {[](auto& p) { p.max_tokens = 0; }, "max_tokens must be at least 1, got 0."},
      {[](auto& p) { p.min_tokens = -1; },
       "min_tokens must be greater than or equal to 0, got -1."},
      {[](auto& p) { p.min_tokens = 17; },
       "min_tokens must be less than or equal to max_tokens=16, got 17."},
      {[](auto& p) { p.temperature = -0.5f; }, "temperature must be non-negative, got -0.5."},
      {[](auto& p) { p.temperature = NAN; }, "temperature must be non-negative, got nan."},
      {[](auto& p) { p.top_p = 0; }, "top_p must be in (0, 1], got 0."},
      {[](auto& p) { p.top_p = 1.5f; }, "top_p must be in (0, 1], got 1.5."},
      {[](auto& p) { p.top_k = -2; }, "top_k must be 0 (disable), or at least 1, got -2."},
      {[](auto& p) { p.min_p = -1; }, "min_p must be in [0, 1], got -1."},
      {[](auto& p) { p.repetition_penalty = 0; },
       "repetition_penalty must be greater than zero, got 0."},
      {[](auto& p) { p.presence_penalty = 2.5f; }, "presence_penalty must be in [-2, 2], got 2.5."},
      {[](auto& p) { p.frequency_penalty = -3; }, "frequency_penalty must be in [-2, 2], got -3."},
      {[](auto& p) { p.logit_bias = {{100, 1.0f}}; },
       "token id 100 in logit_bias is outside the vocabulary of 100."},
      {[](auto& p) { p.logit_bias = {{1, INFINITY}}; }, "logit_bias must be finite, got inf."},
      {[](auto& p) { p.allowed_token_ids = {-1}; }, "token id -1 in allowed_token_ids"},
      {[](auto& p) { p.bad_words = {{}}; }, "bad_words must not contain an empty word."},
      {[](auto& p) { p.bad_words = {{1, 200}}; }, "token id 200 in bad_words"},
      {[](auto& p) { p.logprobs = -2; },
       "logprobs must be between -1 (all) and the vocabulary's 100, got -2."},
      {[](auto& p) { p.prompt_logprobs = 101; }, "prompt_logprobs must be between -1"},
  };
  for (const Case& c : cases) {
    SamplingParams p;
    c.spoil(p);
    const Status s = Validate(p, 100);
    EXPECT_EQ(s.code(), StatusCode::kInvalidArgument) << c.expected;
    EXPECT_THAT(s.message(), testing::HasSubstr(c.expected));
  }
}

}  // namespace
}  // namespace llmd::engine
