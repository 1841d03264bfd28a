#include "llmd/engine/logits.h"

#include <gtest/gtest.h>

#include <limits>

namespace llmd::engine {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

std::vector<float> Apply(const SamplingParams& params, std::vector<TokenId> prompt,
                         std::vector<TokenId> output, std::vector<float> row,
                         std::vector<TokenId> eos = {}) {
  LogitsState state;
  state.Init(params, prompt, eos);
  for (const TokenId t : output) state.OnToken(t);
  state.Apply(params, output, row);
  return row;
}

TEST(LogitsState, IsInactiveByDefault) {
  LogitsState state;
  SamplingParams params;
  state.Init(params, std::vector<TokenId>{1, 2}, {});
  EXPECT_FALSE(state.Active(params, 0));
  params.min_tokens = 2;
  EXPECT_TRUE(state.Active(params, 1));
  EXPECT_FALSE(state.Active(params, 2));
}

TEST(LogitsState, KeepsOnlyAllowedIds) {
  SamplingParams params;
  params.allowed_token_ids = {2, 0};
  EXPECT_EQ(Apply(params, {}, {}, {1, 2, 3, 4}), (std::vector<float>{1, kBanned, 3, kBanned}));
}

TEST(LogitsState, BansTheLastTokenOfABadWordBehindItsOthers) {
  SamplingParams params;
  params.bad_words = {{3}, {1, 2}};
  EXPECT_EQ(Apply(params, {}, {}, {1, 1, 1, 1}), (std::vector<float>{1, 1, 1, kBanned}));
  EXPECT_EQ(Apply(params, {}, {0, 1}, {1, 1, 1, 1}), (std::vector<float>{1, 1, kBanned, kBanned}));
  EXPECT_EQ(Apply(params, {}, {1, 0}, {1, 1, 1, 1}), (std::vector<float>{1, 1, 1, kBanned}));
  EXPECT_EQ(Apply(params, {1}, {}, {1, 1, 1, 1}),
            (std::vector<float>{1, 1, 1, kBanned}));  // the prompt does not count
}

TEST(LogitsState, BansAllStopIdsUntilMinTokens) {
  SamplingParams params;
  params.min_tokens = 2;
  params.stop_token_ids = {1, 99};  // 99 is outside the vocabulary: harmless
  EXPECT_EQ(Apply(params, {}, {0}, {5, 5, 5, 5}, {3}),
            (std::vector<float>{5, kBanned, 5, kBanned}));
  EXPECT_EQ(Apply(params, {}, {0, 0}, {5, 5, 5, 5}, {3}), (std::vector<float>{5, 5, 5, 5}));
}

TEST(LogitsState, AddsBias) {
  SamplingParams params;
  params.logit_bias = {{0, 1.5f}, {2, -100}};
  EXPECT_EQ(Apply(params, {}, {}, {1, 1, 1}), (std::vector<float>{2.5f, 1, -99}));
}

TEST(LogitsState, AppliesRepetitionToPromptAndOutputOnceEach) {
  SamplingParams params;
  params.repetition_penalty = 2;
  EXPECT_EQ(Apply(params, {0, 0, 1}, {2, 2}, {4, -4, 4, 4}), (std::vector<float>{2, -8, 2, 4}));
}

TEST(LogitsState, AppliesFrequencyAndPresenceToTheOutputOnly) {
  SamplingParams params;
  params.frequency_penalty = 0.5f;
  params.presence_penalty = 0.25f;
  EXPECT_EQ(Apply(params, {0}, {1, 2, 2}, {1, 1, 1, 1}), (std::vector<float>{1, 0.25f, -0.25f, 1}));
}

TEST(LogitsState, AppliesBiasBeforePenalties) {
  SamplingParams params;
  params.logit_bias = {{0, 3}};
  params.repetition_penalty = 2;
  EXPECT_EQ(Apply(params, {0}, {}, {1, 1}), (std::vector<float>{2, 1}));
}

}  // namespace
}  // namespace llmd::engine
