// A tiny byte-level vocabulary for tests: all bytes but 0x04, some merges, two control tokens.
#pragma once

#include "llmd/text/tokenizer.h"
#include "text/byte_alphabet.h"

namespace llmd::text {

inline TokenizerSpec MadeSpec() {
  TokenizerSpec spec;
  spec.pre = "gpt-2";
  for (int b = 0; b < 256; ++b) {
    if (b != 4) spec.tokens.emplace_back(ByteSpelling(static_cast<unsigned char>(b)));
  }
  spec.merges = {"l o", "lo w", "e r", "a a", "aa aa", "Ġ low"};
  for (const std::string& merge : spec.merges) {
    const size_t blank = merge.find(' ');
    spec.tokens.push_back(merge.substr(0, blank) + merge.substr(blank + 1));
  }
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  for (const char* control : {"<s>", "<s>x"}) {
    spec.tokens.emplace_back(control);
    spec.types.push_back(TokenType::kControl);
  }
  return spec;
}

}  // namespace llmd::text
