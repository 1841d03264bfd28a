#include "llmd/openai/stream.h"
#include "reply_common.h"

namespace llmd::engine::serving {
namespace {

using openai::MaybeError;

std::string PlainContent(const json::Value& content) {
  if (content.is_string()) return content.AsString();
  std::string text;
  for (const json::Value& part : content.AsArray()) text += part["text"].AsString();
  return text;
}

class ChatReply final : public ReplyBase {
 public:
  ChatReply(const ServingContext& context, openai::ReplyHead head,
            std::unique_ptr<openai::ChatRequest> request)
      : ReplyBase(context, std::move(head), *request),
        request_(std::move(request)),
        writer_(head_) {
    const json::Value& last = request_->prompt.messages.back();
    role_ = request_->prompt.add_generation_prompt ? context.options.response_role
                                                   : last["role"].AsString();
    if (request_->echo && last["role"].AsString() == role_) echo_ = PlainContent(last["content"]);
  }
  // The generation reads the request until it is gone.
  ~ChatReply() override { generation_.reset(); }

  MaybeError Start(const RequestMeta& meta, PreparedPrompt prompt) {
    if (!stream_) choices_.resize(request_->n);
    for (openai::ChatChoice& choice : choices_) choice.content = echo_;
    std::vector<PreparedPrompt> prompts;
    prompts.push_back(std::move(prompt));
    return Generation::Start(context_, meta, head_.id, *request_, std::move(prompts), &generation_);
  }

 protected:
  void WriteDelta(std::string& out, Delta&& delta, bool last) override {
    if (delta.first) Open(out, delta.index);
    const openai::Usage* usage = ChunkUsage(delta);
    writer_.Content(out, ToChoice(std::move(delta)), usage, last);
  }

  void CollectDelta(Delta&& delta) override {
    openai::ChatChoice& whole = choices_[delta.index];
    openai::ChatChoice part = ToChoice(std::move(delta));
    whole.index = part.index;
    whole.role = role_;
    whole.content += part.content;
    whole.finish_reason = std::move(part.finish_reason);
    whole.stop_reason = std::move(part.stop_reason);
    if (part.logprobs) Extend(whole.logprobs, std::move(*part.logprobs));
    if (part.token_ids) Extend(whole.token_ids, std::move(*part.token_ids));
  }

  void WriteUsage(std::string& out, const openai::Usage& usage) override {
    writer_.UsageChunk(out, usage);
  }

  void WriteBody(std::string& out) override {
    openai::ChatExtras extras;
    if (request_->prompt_logprobs) extras.prompt_logprobs = PromptWords(0);
    extras.prompt_token_ids = PromptIds();
    extras.prompt_text = PromptText();
    extras.kv_transfer_params = generation_->kv_transfer_params();
    out += openai::ChatBody(head_, choices_, FinalUsage(), extras);
  }

 private:
  std::optional<openai::TokenIds> PromptIds() const {
    if (!request_->return_token_ids) return std::nullopt;
    return generation_->prompts().front().ids;
  }
  std::optional<std::string> PromptText() const {
    if (!request_->return_prompt_text) return std::nullopt;
    return generation_->prompts().front().text;
  }

  // A choice begins with its role and, for echo, with what it goes on from.
  void Open(std::string& out, int index) {
    openai::Usage usage;
    usage.prompt_tokens = static_cast<int>(generation_->prompt_of(index).ids.size());
    writer_.Role(out, index, role_, PromptIds(), PromptText(),
                 continuous_usage_ ? &usage : nullptr);
    if (echo_.empty()) return;
    openai::ChatChoice choice;
    choice.index = index;
    choice.content = echo_;
    writer_.Content(out, choice, continuous_usage_ ? &usage : nullptr, false);
  }

  openai::ChatChoice ToChoice(Delta&& delta) const {
    openai::ChatChoice choice;
    choice.index = delta.index;
    choice.content = std::move(delta.text);
    choice.finish_reason = std::move(delta.finish_reason);
    choice.stop_reason = std::move(delta.stop_reason);
    if (request_->logprobs) choice.logprobs = std::move(delta.logprobs);
    if (request_->return_token_ids) choice.token_ids = std::move(delta.token_ids);
    return choice;
  }

  const std::unique_ptr<openai::ChatRequest> request_;
  const openai::ChatChunkWriter writer_;
  std::string role_, echo_;
  std::vector<openai::ChatChoice> choices_;
};

MaybeError Prepare(const ServingContext& context, const openai::ChatRequest& request,
                   PreparedPrompt* prompt) {
  std::string text;
  if (auto e = RenderChat(context, request.prompt, &text)) return e;
  if (auto e = TokenizePrompt(context, request, text, prompt)) return e;
  return FitPrompt(context, request, prompt);
}

}  // namespace

MaybeError BeginChat(const ServingContext& context, std::string_view body, const RequestMeta& meta,
                     std::unique_ptr<Reply>* out) {
  auto request = std::make_unique<openai::ChatRequest>();
  MaybeError error = openai::ParseChat(body, context.options.parse, request.get());
  if (!error) error = CheckModel(context, request->model);
  PreparedPrompt prompt;
  if (!error) error = Prepare(context, *request, &prompt);
  if (error) return Rejected(context, *request, std::move(error));
  openai::ReplyHead head = MakeHead(context, MakeId("chatcmpl-", meta, *request));
  auto reply = std::make_unique<ChatReply>(context, std::move(head), std::move(request));
  if (auto e = reply->Start(meta, std::move(prompt))) return e;
  *out = std::move(reply);
  return std::nullopt;
}

}  // namespace llmd::engine::serving
