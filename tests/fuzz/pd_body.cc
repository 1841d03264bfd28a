#include "fuzz/fuzz.h"
#include "llmd/json.h"
#include "llmd/pd/object_edit.h"
#include "llmd/pd/protocol.h"
#include "llmd/pd/usage_rewriter.h"

namespace pd = llmd::pd;

namespace {
std::string Rewrite(std::string_view input, uint32_t seed) {
  pd::UsageRewriter rewriter(pd::UsageRewriter::Kind::kSse, 7);
  std::string out;
  auto feed = [&](std::string_view piece) { out += rewriter.Feed(piece); };
  seed == 0 ? feed(input) : llmd::fuzz::InPieces(input, seed, feed);
  return out + rewriter.End();
}
}  // namespace

FUZZ_TARGET(pd_body) {
  FUZZ_EXPECT(Rewrite(input, 0) == Rewrite(input, static_cast<uint32_t>(input.size()) + 1));
  (void)pd::ParsePrefillReply(input);
  (void)pd::ParseLender(input);
  auto edit = pd::ObjectEdit::Parse(input);
  const auto decode = pd::DecodeBody(input, R"({"a":1})");
  FUZZ_EXPECT(edit.ok() == decode.ok());
  if (!edit.ok()) {
    FUZZ_EXPECT(pd::LocalBody(input) == input);
    return;
  }
  FUZZ_EXPECT(edit->Build() == input);
  const auto members = llmd::json::ScanObject(*decode);
  FUZZ_EXPECT(members.ok());
  const auto* params = llmd::json::FindMember(*members, *decode, "kv_transfer_params");
  FUZZ_EXPECT(params != nullptr && params->value.In(*decode) == R"({"a":1})");
  const std::string local = pd::LocalBody(input);
  auto stripped = pd::ObjectEdit::Parse(local);
  FUZZ_EXPECT(stripped.ok() && !stripped->Has("kv_transfer_params"));
  for (auto api :
       {pd::Api::kCompletions, pd::Api::kChat, pd::Api::kResponses, pd::Api::kGenerate}) {
    const auto prefill = pd::PrefillBody(api, input);
    FUZZ_EXPECT(prefill.ok() && llmd::json::ScanObject(*prefill).ok());
  }
  FUZZ_EXPECT(llmd::json::ScanObject(pd::RewriteCachedTokens(input, 3)).ok());
}
