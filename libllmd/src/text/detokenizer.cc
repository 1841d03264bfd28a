#include "llmd/text/detokenizer.h"

#include "text/unicode.h"

namespace llmd::text {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

// A token whose last character is unfinished is held whole: if generation ends there, its leading
// blank must go with the half character, as vLLM does it.
std::string Detokenizer::Push(std::span<const TokenId> ids) {
  std::string out;
  for (const TokenId id : ids) {
    const auto bytes = tokenizer_.TokenBytes(id);
    if (!bytes.ok() || (skip_special_ && tokenizer_.IsSpecial(id))) continue;
    const size_t token_start = pending_.size();
    pending_.append(*bytes);
    const size_t open = OpenSequenceStart(pending_);
    const size_t ready = open == pending_.size() ? open : open >= token_start ? token_start : 0;
    AppendLossy(out, std::string_view(pending_).substr(0, ready));
    pending_.erase(0, ready);
  }
  return out;
}

std::string Detokenizer::Finish() {
  pending_.clear();
  return {};
}

}  // namespace llmd::text
