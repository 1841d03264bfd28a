// What vocabularies say by the text of a token where the file's keys are silent or wrong: which
// tokens end a turn, and which families begin a text with BOS. Pure functions; thread-safe.
#pragma once

#include <string_view>
#include <vector>

#include "llmd/text/tokenizer.h"

namespace llmd::text {

// Ids of the tokens that end a turn or a text in the vocabularies of published models
// ("<|im_end|>",
// "<|eot_id|>", …), in ascending order, by llama.cpp's list without its fill-in-the-middle tokens.
// A name that ordinary text may have ("</s>", "<eos>", "[EOT]", …) counts only for a control token.
std::vector<TokenId> EndOfTurnTokens(const TokenizerSpec& spec);

// Whether files with this pre-tokenizer begin a text with BOS unless they say otherwise.
bool AddsBosByDefault(std::string_view pre);

}  // namespace llmd::text
