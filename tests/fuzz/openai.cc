#include "fuzz/fuzz.h"
#include "llmd/openai/request.h"

namespace openai = llmd::openai;

namespace {
void CheckError(const openai::MaybeError& error) {
  if (!error) return;
  FUZZ_EXPECT(error->status >= 400 && error->status < 600);
  FUZZ_EXPECT(llmd::json::Parse(openai::ErrorBody(*error)).ok());
}
void CheckCommon(const openai::CommonRequest& r, const openai::ParseLimits& limits) {
  FUZZ_EXPECT(r.n >= 1 && r.n <= limits.max_n);
  FUZZ_EXPECT(r.stop.size() <= limits.max_stop_strings);
  if (r.temperature) FUZZ_EXPECT(*r.temperature >= 0);
  if (r.top_p) FUZZ_EXPECT(*r.top_p > 0 && *r.top_p <= 1);
  FUZZ_EXPECT(r.presence_penalty >= -2 && r.presence_penalty <= 2);
}
}  // namespace

FUZZ_TARGET(openai) {
  const openai::ParseLimits limits;
  openai::CompletionRequest completion;
  auto error = openai::ParseCompletion(input, limits, &completion);
  CheckError(error);
  if (!error) {
    FUZZ_EXPECT(!completion.prompts.empty() && completion.prompts.size() <= limits.max_prompts);
    CheckCommon(completion, limits);
  }
  openai::ChatRequest chat;
  error = openai::ParseChat(input, limits, &chat);
  CheckError(error);
  if (!error) CheckCommon(chat, limits);
  openai::TokenizeRequest tokenize;
  CheckError(openai::ParseTokenize(input, limits, &tokenize));
  openai::DetokenizeRequest detokenize;
  CheckError(openai::ParseDetokenize(input, &detokenize));
}
