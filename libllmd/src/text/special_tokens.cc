#include "llmd/text/special_tokens.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>

namespace llmd::text {
namespace {

constexpr std::string_view kEnds[] = {"<|eot_id|>",
                                      "<|im_end|>",
                                      "<|end|>",
                                      "<|return|>",
                                      "<|call|>",
                                      "<|flush|>",
                                      "<|calls|>",
                                      "<end_of_turn>",
                                      "<turn|>",
                                      "<|endoftext|>",
                                      "<|eom_id|>",
                                      "<|end_of_text|>",
                                      "<end_of_utterance>",
                                      "_<EOT>",
                                      "<|tool_response>",
                                      "<｜end▁of▁sentence｜>"};
constexpr std::string_view kEndsOfControlTokens[] = {"</s>",  "<EOT>", "[EOT]",
                                                     "[EOS]", "<eos>", "[e~["};

bool Among(std::string_view token, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), token) != names.end();
}

bool Has(const TokenizerSpec& spec, const std::vector<TokenId>& ids, std::string_view token) {
  return std::any_of(ids.begin(), ids.end(), [&](TokenId id) { return spec.tokens[id] == token; });
}

void Drop(const TokenizerSpec& spec, std::vector<TokenId>& ids, std::string_view token) {
  std::erase_if(ids, [&](TokenId id) { return spec.tokens[id] == token; });
}

}  // namespace

std::vector<TokenId> EndOfTurnTokens(const TokenizerSpec& spec) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const std::string& token = spec.tokens[i];
    const bool control = i < spec.types.size() && spec.types[i] == TokenType::kControl;
    if (Among(token, kEnds) || (control && Among(token, kEndsOfControlTokens)))
      ids.push_back(static_cast<TokenId>(i));
  }
  // Between the parts of a message there, not behind it.
  const bool call = Has(spec, ids, "<|call|>"), calls = Has(spec, ids, "<|calls|>");
  if ((Has(spec, ids, "<|return|>") && call) || (calls && Has(spec, ids, "<|flush|>")))
    Drop(spec, ids, "<|end|>");
  if (Has(spec, ids, "<|tool_response>")) Drop(spec, ids, "</s>");
  return ids;
}

bool AddsBosByDefault(std::string_view pre) {
  return Among(pre, std::to_array<std::string_view>({"llama-bpe", "llama3", "llama-v3", "falcon3",
                                                     "falcon-h1", "pixtral", "midm-2.0", "lfm2",
                                                     "tekken", "chameleon"}));
}

}  // namespace llmd::text
