// Text to token ids and back. Byte-level BPE built from the vocabulary and merges a GGUF file
// carries; ids equal those of Hugging Face `tokenizers`. Thread-safe once made.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::text {

using TokenId = int32_t;

enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

// What a model file says about its tokenizer (GGUF keys tokenizer.ggml.*).
struct TokenizerSpec {
  std::string pre;  // "smollm", "gpt-2", "llama-bpe", "qwen2"
  std::vector<std::string>
      tokens;  // byte-level alphabet for normal tokens, plain text for control ones
  std::vector<TokenType> types;     // same length, or empty = all normal
  std::vector<std::string> merges;  // "left right", in rank order
  TokenId bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;
  bool add_bos = false, add_eos = false;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `text` to `out`. With `parse_special`, the text of control and user-defined
  // tokens becomes their ids (as HF does), else it is encoded as text. `add_special` adds BOS/EOS
  // as the model asks. Invalid UTF-8 bytes are taken as U+FFFD, text for "qwen2" in
  // normalisation form C. Bytes the vocabulary lacks are dropped, as HF drops them.
  virtual void Encode(std::string_view text, bool add_special, bool parse_special,
                      std::vector<TokenId>& out) const = 0;
  std::vector<TokenId> Encode(std::string_view text, bool add_special = true) const {
    std::vector<TokenId> out;
    Encode(text, add_special, true, out);
    return out;
  }
  // The bytes of one token (may be part of a UTF-8 sequence). Control tokens give their text.
  // OUT_OF_RANGE for no such id.
  virtual StatusOr<std::string_view> TokenBytes(TokenId id) const = 0;
  // Whole text; invalid UTF-8 becomes U+FFFD. Control tokens are left out with `skip_special`.
  virtual StatusOr<std::string> Decode(std::span<const TokenId> ids, bool skip_special) const = 0;
  // The token as the vocabulary spells it (byte-level alphabet), as /tokenize return_token_strs
  // shows it.
  virtual std::string_view TokenString(TokenId id) const = 0;
  virtual TokenId IdOf(std::string_view token) const = 0;  // -1 when absent
  virtual bool IsSpecial(TokenId id) const = 0;
  virtual int vocab_size() const = 0;
  virtual const TokenizerSpec& spec() const = 0;
  virtual size_t longest_token_bytes() const = 0;
};

// INVALID_ARGUMENT: unknown pre-tokenizer, merges that name absent tokens, sizes that differ.
StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerSpec spec);

}  // namespace llmd::text
