#include "llmd/engine/logits.h"

#include <algorithm>
#include <limits>

namespace llmd::engine {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

void Ban(std::span<float> logits, TokenId id) {
  if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[id] = kBanned;
}

void ApplyAllowed(std::span<const TokenId> allowed, std::span<float> logits,
                  std::vector<float>& kept) {
  kept.clear();
  for (const TokenId id : allowed) kept.push_back(logits[id]);
  std::fill(logits.begin(), logits.end(), kBanned);
  for (size_t i = 0; i < allowed.size(); ++i) logits[allowed[i]] = kept[i];
}

bool EndsWith(std::span<const TokenId> output, std::span<const TokenId> suffix) {
  return output.size() >= suffix.size() &&
         std::equal(suffix.begin(), suffix.end(), output.end() - suffix.size());
}

void ApplyBadWords(const std::vector<std::vector<TokenId>>& bad_words,
                   std::span<const TokenId> output, std::span<float> logits) {
  for (const auto& word : bad_words) {
    if (EndsWith(output, std::span(word).first(word.size() - 1))) Ban(logits, word.back());
  }
}

}  // namespace

void LogitsState::Init(const SamplingParams& params, std::span<const TokenId> prompt,
                       std::span<const TokenId> eos_ids) {
  penalties_ = params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
               params.frequency_penalty != 0.0f;
  if (penalties_) {
    std::vector<TokenId> ids(prompt.begin(), prompt.end());
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (const TokenId id : ids) seen_.push_back({id, 0});
  }
  if (params.min_tokens > 0) {
    stop_ids_ = params.stop_token_ids;
    stop_ids_.insert(stop_ids_.end(), eos_ids.begin(), eos_ids.end());
  }
}

void LogitsState::OnToken(TokenId token) {
  if (!penalties_) return;
  auto at = std::lower_bound(seen_.begin(), seen_.end(), token,
                             [](const Seen& s, TokenId id) { return s.id < id; });
  if (at == seen_.end() || at->id != token) at = seen_.insert(at, {token, 0});
  ++at->output_count;
}

bool LogitsState::Active(const SamplingParams& params, size_t num_output) const {
  return penalties_ || !params.allowed_token_ids.empty() || !params.bad_words.empty() ||
         !params.logit_bias.empty() ||
         num_output < static_cast<size_t>(std::max(params.min_tokens, 0));
}

void LogitsState::Apply(const SamplingParams& params, std::span<const TokenId> output,
                        std::span<float> logits) {
  if (!params.allowed_token_ids.empty()) ApplyAllowed(params.allowed_token_ids, logits, kept_);
  ApplyBadWords(params.bad_words, output, logits);
  if (output.size() < static_cast<size_t>(std::max(params.min_tokens, 0))) {
    for (const TokenId id : stop_ids_) Ban(logits, id);
  }
  for (const auto& [id, bias] : params.logit_bias) logits[id] += bias;
  if (penalties_) ApplyPenalties(params, logits);
}

void LogitsState::ApplyPenalties(const SamplingParams& params, std::span<float> logits) const {
  for (const Seen& seen : seen_) {
    float& logit = logits[seen.id];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= params.frequency_penalty * static_cast<float>(seen.output_count);
    if (seen.output_count > 0) logit -= params.presence_penalty;
  }
}

}  // namespace llmd::engine
