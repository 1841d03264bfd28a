#include "llmd/openai/stream.h"
#include "reply_common.h"

namespace llmd::engine::serving {
namespace {

using openai::MaybeError;

class CompletionReply final : public ReplyBase {
 public:
  CompletionReply(const ServingContext& context, openai::ReplyHead head,
                  std::unique_ptr<openai::CompletionRequest> request)
      : ReplyBase(context, std::move(head), *request),
        request_(std::move(request)),
        writer_(head_) {}
  // The generation reads the request until it is gone.
  ~CompletionReply() override { generation_.reset(); }

  MaybeError Start(const RequestMeta& meta, std::vector<PreparedPrompt> prompts) {
    const size_t count = prompts.size() * request_->n;
    offsets_.assign(count, 0);
    if (!stream_) choices_.resize(count);
    return Generation::Start(context_, meta, head_.id, *request_, std::move(prompts), &generation_);
  }

 protected:
  void WriteDelta(std::string& out, Delta&& delta, bool last) override {
    const openai::Usage* usage = ChunkUsage(delta);
    writer_.Chunk(out, ToChoice(std::move(delta)), usage, last);
  }

  void CollectDelta(Delta&& delta) override {
    openai::CompletionChoice& whole = choices_[delta.index];
    if (delta.first) {
      whole = ToChoice(std::move(delta));
      return;
    }
    openai::CompletionChoice part = ToChoice(std::move(delta));
    whole.text += part.text;
    whole.finish_reason = std::move(part.finish_reason);
    whole.stop_reason = std::move(part.stop_reason);
    if (part.logprobs) Extend(whole.logprobs, std::move(*part.logprobs));
    if (part.token_ids) Extend(whole.token_ids, std::move(*part.token_ids));
  }

  void WriteUsage(std::string& out, const openai::Usage& usage) override {
    writer_.UsageChunk(out, usage);
  }

  void WriteBody(std::string& out) override {
    for (openai::CompletionChoice& choice : choices_) {
      if (request_->prompt_logprobs) choice.prompt_logprobs = PromptWords(choice.index);
    }
    out += openai::CompletionBody(head_, choices_, FinalUsage(), generation_->kv_transfer_params());
  }

  openai::Usage FinalUsage() const override {
    openai::Usage usage = generation_->usage();
    if (only_prompt()) usage.completion_tokens = 0;
    return usage;
  }

 private:
  // Prompt scoring: the one token the engine had to make is not part of the answer.
  bool only_prompt() const { return request_->echo && request_->max_tokens == 0; }

  openai::CompletionChoice ToChoice(Delta&& delta) {
    openai::CompletionChoice choice;
    choice.index = delta.index;
    choice.text_offset = offsets_[delta.index];
    choice.finish_reason = std::move(delta.finish_reason);
    choice.stop_reason = std::move(delta.stop_reason);
    if (delta.first) TakePrompt(choice);
    if (!only_prompt()) {
      choice.text += delta.text;
      if (request_->logprobs) Extend(choice.logprobs, std::move(delta.logprobs));
      if (request_->return_token_ids) Extend(choice.token_ids, std::move(delta.token_ids));
    }
    offsets_[delta.index] += openai::CharCount(choice.text);
    return choice;
  }

  void TakePrompt(openai::CompletionChoice& choice) {
    const PreparedPrompt& prompt = generation_->prompt_of(choice.index);
    if (request_->return_token_ids) choice.prompt_token_ids = prompt.ids;
    if (!request_->echo) return;
    choice.text = prompt.text;
    if (request_->logprobs) choice.logprobs = PromptWords(choice.index);
    if (request_->return_token_ids) choice.token_ids = prompt.ids;
  }

  const std::unique_ptr<openai::CompletionRequest> request_;
  const openai::CompletionChunkWriter writer_;
  std::vector<int> offsets_;  // characters of each choice so far
  std::vector<openai::CompletionChoice> choices_;
};

MaybeError Prepare(const ServingContext& context, const openai::CompletionRequest& request,
                   std::vector<PreparedPrompt>* prompts) {
  for (const openai::Prompt& prompt : request.prompts) {
    PreparedPrompt& prepared = prompts->emplace_back();
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      if (auto e = TokenizePrompt(context, request, *text, &prepared)) return e;
    } else if (auto e =
                   TakeIds(context, std::get<openai::TokenIds>(prompt), request.echo, &prepared)) {
      return e;
    }
    if (auto e = FitPrompt(context, request, &prepared)) return e;
  }
  return std::nullopt;
}

}  // namespace

MaybeError BeginCompletion(const ServingContext& context, std::string_view body,
                           const RequestMeta& meta, std::unique_ptr<Reply>* out) {
  auto request = std::make_unique<openai::CompletionRequest>();
  MaybeError error = openai::ParseCompletion(body, context.options.parse, request.get());
  if (!error) error = CheckModel(context, request->model);
  std::vector<PreparedPrompt> prompts;
  if (!error) error = Prepare(context, *request, &prompts);
  if (error) return Rejected(context, *request, std::move(error));
  openai::ReplyHead head = MakeHead(context, MakeId("cmpl-", meta, *request));
  auto reply = std::make_unique<CompletionReply>(context, std::move(head), std::move(request));
  if (auto e = reply->Start(meta, std::move(prompts))) return e;
  *out = std::move(reply);
  return std::nullopt;
}

}  // namespace llmd::engine::serving
