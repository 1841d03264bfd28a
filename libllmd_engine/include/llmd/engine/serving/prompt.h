// From what a client sent to token ids: templates, tokenisation, truncation, length and vocabulary
// rules, and the sampling parameters. Pure functions over the context; may take milliseconds for
// long prompts, so not on a loop thread.
#pragma once

#include <string>

#include "llmd/engine/sampling.h"
#include "llmd/engine/serving/context.h"
#include "llmd/openai/request.h"

namespace llmd::engine::serving {

struct PreparedPrompt {
  openai::TokenIds ids;
  std::string text;    // what `ids` spell; set when it was sent as text or is needed for echo
  int max_tokens = 0;  // output tokens this prompt may have
};

// Renders the conversation. 400 when the template refuses it or there is none.
openai::MaybeError RenderChat(const ServingContext& context, const openai::ChatPrompt& chat,
                              std::string* text);
// Text to ids. A text that cannot fit is refused before it is tokenised.
openai::MaybeError TokenizePrompt(const ServingContext& context,
                                  const openai::CommonRequest& request, std::string_view text,
                                  PreparedPrompt* out);
// Ids as sent: in vocabulary.
openai::MaybeError TakeIds(const ServingContext& context, openai::TokenIds ids, bool want_text,
                           PreparedPrompt* out);
// Truncates as asked, checks the prompt against max_model_len and sets max_tokens.
openai::MaybeError FitPrompt(const ServingContext& context, const openai::CommonRequest& request,
                             PreparedPrompt* prompt);
// Everything but max_tokens, which is each prompt's own.
openai::MaybeError MakeSampling(const ServingContext& context, const openai::CommonRequest& request,
                                SamplingParams* out);
// Unknown names are 404; no name is the first one.
openai::MaybeError CheckModel(const ServingContext& context,
                              const std::optional<std::string>& model);

}  // namespace llmd::engine::serving
