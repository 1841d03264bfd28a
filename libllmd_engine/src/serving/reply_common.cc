#include "reply_common.h"

#include "llmd/openai/stream.h"
#include "llmd/uuid.h"

namespace llmd::engine::serving {
std::string MakeId(std::string_view prefix, const RequestMeta& meta,
                   const openai::CommonRequest& request) {
  std::string id(prefix);
  if (!meta.request_id.empty()) return id + meta.request_id;
  return id + (request.request_id ? *request.request_id : NewUuid());
}

openai::ReplyHead MakeHead(const ServingContext& context, std::string id) {
  return {std::move(id), context.clock.UnixNanos() / 1'000'000'000,
          context.options.model_names.front(), context.options.system_fingerprint};
}

openai::MaybeError Rejected(const ServingContext& context, const openai::CommonRequest& request,
                            openai::MaybeError error) {
  if (error && request.kv_transfer_params.is_object()) {
    context.engine.DiscardTransfer(request.kv_transfer_params);
  }
  return error;
}

ReplyBase::ReplyBase(const ServingContext& context, openai::ReplyHead head,
                     const openai::CommonRequest& request)
    : context_(context),
      head_(std::move(head)),
      common_(request),
      stream_(request.stream),
      include_usage_(request.include_usage || context.options.force_include_usage),
      continuous_usage_(request.continuous_usage_stats || context.options.force_include_usage) {}

const openai::Usage* ReplyBase::ChunkUsage(const Delta& delta) {
  if (completion_tokens_.size() <= static_cast<size_t>(delta.index)) {
    completion_tokens_.resize(delta.index + 1);
  }
  completion_tokens_[delta.index] += static_cast<int>(delta.token_ids.size());
  if (!continuous_usage_) return nullptr;
  chunk_usage_.prompt_tokens = static_cast<int>(generation_->prompt_of(delta.index).ids.size());
  chunk_usage_.completion_tokens = completion_tokens_[delta.index];
  return &chunk_usage_;
}

std::vector<openai::PositionLogprobs> ReplyBase::PromptWords(int index) const {
  return PromptLogprobWords(generation_->prompt_of(index).ids,
                            generation_->prompt_logprobs_of(index), context_.tokenizer,
                            common_.return_tokens_as_token_ids);
}

bool ReplyBase::Advance(std::string& out) {
  std::vector<Delta> deltas = generation_->Poll();
  const bool finished = generation_->finished();
  for (size_t i = 0; i < deltas.size(); ++i) {
    if (stream_) {
      WriteDelta(out, std::move(deltas[i]), finished && i + 1 == deltas.size());
    } else {
      CollectDelta(std::move(deltas[i]));
    }
  }
  return finished && End(out);
}

bool ReplyBase::End(std::string& out) {
  if (!stream_) {
    error_ = generation_->error();
    if (!error_) WriteBody(out);
    return true;
  }
  if (generation_->error()) {
    openai::AppendErrorFrame(out, *generation_->error());
  } else if (include_usage_) {
    WriteUsage(out, FinalUsage());
  }
  openai::AppendDone(out);
  return true;
}

}  // namespace llmd::engine::serving
