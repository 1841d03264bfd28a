#include "llmd/text/tokenizer.h"

#include <algorithm>

#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/nfc.h"
#include "text/pretokenizer.h"
#include "text/special_matcher.h"
#include "text/token_table.h"
#include "text/unicode.h"

namespace llmd::text {
namespace {

bool MatchedWhole(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined;
}

TokenType TypeOf(const TokenizerSpec& spec, size_t i) {
  return spec.types.empty() ? TokenType::kNormal : spec.types[i];
}

std::vector<std::string> BytesOfTokens(const TokenizerSpec& spec) {
  std::vector<std::string> bytes(spec.tokens.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto spelled =
        MatchedWhole(TypeOf(spec, i)) ? std::nullopt : SpelledBytes(spec.tokens[i]);
    bytes[i] = spelled ? *spelled : spec.tokens[i];
  }
  return bytes;
}

TokenTable TableOf(const std::vector<std::string>& tokens) {
  TokenTable table(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) table.Insert(tokens[i], static_cast<TokenId>(i));
  return table;
}

SpecialMatcher MatcherOf(const TokenizerSpec& spec) {
  std::vector<std::pair<std::string_view, TokenId>> tokens;
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (MatchedWhole(TypeOf(spec, i))) tokens.emplace_back(spec.tokens[i], static_cast<TokenId>(i));
  }
  return SpecialMatcher(std::move(tokens));
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(std::unique_ptr<const TokenizerSpec> spec, PreTokenizer pre)
      : spec_(std::move(spec)),
        pre_(pre),
        bytes_(BytesOfTokens(*spec_)),
        spelled_(TableOf(spec_->tokens)),
        specials_(MatcherOf(*spec_)) {
    for (const std::string& token : bytes_) longest_ = std::max(longest_, token.size());
  }
  Status BuildMerges() {
    LLMD_ASSIGN_OR_RETURN(Bpe bpe,
                          Bpe::Build(*spec_, spelled_, bytes_, pre_ == PreTokenizer::kLlama3));
    bpe_ = std::make_unique<const Bpe>(std::move(bpe));
    return OkStatus();
  }

  void Encode(std::string_view text, bool add_special, bool parse_special,
              std::vector<TokenId>& out) const override {
    std::string repaired;
    if (!IsValidUtf8(text)) {
      AppendLossy(repaired, text);
      text = repaired;
    }
    if (add_special && spec_->add_bos && spec_->bos >= 0) out.push_back(spec_->bos);
    parse_special ? EncodeWithSpecials(text, out) : EncodeText(text, out);
    if (add_special && spec_->add_eos && spec_->eos >= 0) out.push_back(spec_->eos);
  }
  StatusOr<std::string_view> TokenBytes(TokenId id) const override {
    if (!Known(id)) {
      return OutOfRange("tokenizer: no token " + std::to_string(id) + ", the vocabulary has " +
                        std::to_string(vocab_size()));
    }
    return std::string_view(bytes_[id]);
  }
  StatusOr<std::string> Decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::string bytes, text;
    for (const TokenId id : ids) {
      LLMD_ASSIGN_OR_RETURN(const std::string_view token, TokenBytes(id));
      if (!(skip_special && IsSpecial(id))) bytes.append(token);
    }
    if (IsValidUtf8(bytes)) return bytes;
    AppendLossy(text, bytes);
    return text;
  }
  std::string_view TokenString(TokenId id) const override {
    return Known(id) ? spec_->tokens[id] : std::string_view();
  }
  TokenId IdOf(std::string_view token) const override { return spelled_.Find(token); }
  bool IsSpecial(TokenId id) const override {
    return Known(id) && TypeOf(*spec_, id) == TokenType::kControl;
  }
  int vocab_size() const override { return static_cast<int>(spec_->tokens.size()); }
  const TokenizerSpec& spec() const override { return *spec_; }
  size_t longest_token_bytes() const override { return longest_; }

 private:
  bool Known(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < bytes_.size(); }
  void EncodeText(std::string_view text, std::vector<TokenId>& out) const {
    std::string normal;
    if (pre_ == PreTokenizer::kQwen2) text = Nfc(text, normal);
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at < end) {
      const char* const next = NextWord(pre_, at, end);
      bpe_->EncodeWord({at, static_cast<size_t>(next - at)}, out);
      at = next;
    }
  }
  void EncodeWithSpecials(std::string_view text, std::vector<TokenId>& out) const {
    size_t at = 0;
    for (;;) {
      const SpecialMatcher::Match match = specials_.Find(text, at);
      if (match.id < 0) return EncodeText(text.substr(at), out);
      EncodeText(text.substr(at, match.position - at), out);
      out.push_back(match.id);
      at = match.position + match.length;
    }
  }

  const std::unique_ptr<const TokenizerSpec> spec_;
  const PreTokenizer pre_;
  const std::vector<std::string> bytes_;
  const TokenTable spelled_;
  const SpecialMatcher specials_;
  std::unique_ptr<const Bpe> bpe_;
  size_t longest_ = 0;
};

Status CheckSizes(const TokenizerSpec& spec) {
  if (spec.tokens.empty()) return InvalidArgument("tokenizer: the vocabulary is empty");
  if (!spec.types.empty() && spec.types.size() != spec.tokens.size()) {
    return InvalidArgument("tokenizer: " + std::to_string(spec.tokens.size()) + " tokens but " +
                           std::to_string(spec.types.size()) + " token types");
  }
  const auto size = static_cast<TokenId>(spec.tokens.size());
  for (const TokenId id : {spec.bos, spec.eos, spec.eot, spec.unk, spec.pad}) {
    if (id >= size)
      return InvalidArgument("tokenizer: special token " + std::to_string(id) +
                             " is not in the vocabulary");
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerSpec spec) {
  const auto pre = PreTokenizerByName(spec.pre);
  if (!pre) {
    return InvalidArgument("tokenizer: unknown pre-tokenizer \"" + spec.pre +
                           "\", known: smollm, gpt-2, llama-bpe, qwen2");
  }
  LLMD_RETURN_IF_ERROR(CheckSizes(spec));
  auto made =
      std::make_unique<BpeTokenizer>(std::make_unique<const TokenizerSpec>(std::move(spec)), *pre);
  LLMD_RETURN_IF_ERROR(made->BuildMerges());
  return std::unique_ptr<Tokenizer>(std::move(made));
}

}  // namespace llmd::text
