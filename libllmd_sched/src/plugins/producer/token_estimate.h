// TokenizedPrompt by estimate: 4 bytes of text are one pseudo-token (docs/reference/producers.md).
// Token arrays are taken as they are.
#pragma once

#include "llmd/sched/request_context.h"
#include "llmd/status.h"
#include "plugins/producer/media_estimate.h"

namespace llmd::sched {

// Fills tokens, bounds and media of an empty `out`. An error for bodies that hold no prompt of
// their kind.
Status EstimateTokens(const RequestContext& request, const MediaEstimate& media, Attribute& out);

// vLLM's "features" of a tokenised prompt (mm_hashes and mm_placeholders, both by modality);
// appends its media as those of prompt `prompt`. What is not of that shape is left out.
void ReadFeatures(std::string_view json, size_t prompt, std::vector<MediaItem>& media);

// Appends the numbers of a JSON array.
void ReadTokenIds(std::string_view json_array, std::vector<uint32_t>& tokens);

}  // namespace llmd::sched
