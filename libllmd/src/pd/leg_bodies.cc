#include "llmd/pd/object_edit.h"
#include "llmd/pd/protocol.h"

namespace llmd::pd {
namespace {

constexpr std::string_view kParams = "kv_transfer_params";
constexpr std::string_view kAskRemoteDecode =
    R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
    R"("remote_host":null,"remote_port":null})";

// One sample is enough to fill the cache; a client that did not ask for more gets no new member.
void CapSamples(ObjectEdit& edit) {
  for (std::string_view key : {"n", "best_of"}) {
    if (edit.Has(key)) edit.Set(key, "1");
  }
}

void CapLimits(ObjectEdit& edit, std::initializer_list<std::string_view> limits) {
  for (std::string_view key : limits) edit.Set(key, "1");
  CapSamples(edit);
}

void CapSamplingParams(ObjectEdit& edit) {
  const std::string nested(edit.Get("sampling_params"));
  auto params = ObjectEdit::Parse(nested);
  if (!params.ok()) {
    edit.Set("sampling_params", R"({"max_tokens":1,"min_tokens":1})");
    return;
  }
  CapLimits(*params, {"max_tokens", "min_tokens"});
  edit.Set("sampling_params", params->Build());
}

void CapTokens(Api api, ObjectEdit& edit) {
  switch (api) {
    case Api::kCompletions:
    case Api::kChat:
    case Api::kMessages:
      return CapLimits(edit, {"max_tokens", "max_completion_tokens", "min_tokens"});
    case Api::kResponses:
      return CapLimits(edit, {"max_output_tokens"});
    case Api::kGenerate:
      return CapSamplingParams(edit);
  }
}

void EditForPrefill(Api api, ObjectEdit& edit) {
  edit.Set(kParams, std::string(kAskRemoteDecode));
  edit.Set("stream", "false");
  edit.Remove("stream_options");
  CapTokens(api, edit);
}

void EditForDecode(std::string_view kv_transfer_params, ObjectEdit& edit) {
  edit.Set(kParams, std::string(kv_transfer_params.empty() ? "null" : kv_transfer_params));
}

}  // namespace

StatusOr<std::string> PrefillBody(Api api, std::string_view body) {
  LLMD_ASSIGN_OR_RETURN(ObjectEdit edit, ObjectEdit::Parse(body));
  EditForPrefill(api, edit);
  return edit.Build();
}

StatusOr<std::string> DecodeBody(std::string_view body, std::string_view kv_transfer_params) {
  LLMD_ASSIGN_OR_RETURN(ObjectEdit edit, ObjectEdit::Parse(body));
  EditForDecode(kv_transfer_params, edit);
  return edit.Build();
}

std::string LocalBody(std::string_view body) {
  auto edit = ObjectEdit::Parse(body);
  if (!edit.ok()) return std::string(body);
  edit->Remove(kParams);
  return edit->Build();
}

bool MayHoldParams(std::string_view body) {
  // Only \u escapes can hide the letters of a key.
  return body.find(kParams) != std::string_view::npos || body.find("\\u") != std::string_view::npos;
}

StatusOr<LegBodies> LegBodies::Parse(std::string_view body) {
  LLMD_ASSIGN_OR_RETURN(ObjectEdit scanned, ObjectEdit::Parse(body));
  return LegBodies(std::move(scanned));
}

LegBodies::Pieces LegBodies::Prefill(Api api) {
  edit_ = scanned_;
  EditForPrefill(api, edit_);
  return Cut();
}

LegBodies::Pieces LegBodies::Decode(std::string_view kv_transfer_params) {
  edit_ = scanned_;
  EditForDecode(kv_transfer_params, edit_);
  return Cut();
}

LegBodies::Pieces LegBodies::Local() {
  edit_ = scanned_;
  edit_.Remove(kParams);
  return Cut();
}

LegBodies::Pieces LegBodies::Cut() {
  pieces_ = edit_.Pieces();
  if (pieces_.size() <= kMaxPieces) return pieces_;
  // A body with very many doubles of a key.
  joined_ = edit_.Build();
  pieces_ = {joined_};
  return pieces_;
}

}  // namespace llmd::pd
