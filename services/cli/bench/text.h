// Prompts made of common English words. A word with the blank before it is one token of the usual
// byte-level BPE vocabularies, so a text of n words is n tokens there, give or take the first.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cli/bench/random.h"

namespace llmd::bench {

inline constexpr size_t kWords = 256;
// The words, each with a blank before it.
std::string_view WordWithBlank(size_t index);

// Appends `words` random words with blanks between them, and one before the first unless `out` is
// to begin a text. Nothing in it needs escaping in JSON.
void AppendWords(std::string& out, Random random, uint64_t words, bool begins_text);

}  // namespace llmd::bench
