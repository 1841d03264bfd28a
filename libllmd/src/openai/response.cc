#include "llmd/openai/response.h"

#include "writer.h"

namespace llmd::openai {
namespace {

void AppendHead(std::string& out, const ReplyHead& head, std::string_view object) {
  out += R"({"id":)";
  writer::Text(out, head.id);
  out += R"(,"object":")";
  out += object;
  out += R"(","created":)";
  writer::Int(out, head.created);
  out += R"(,"model":)";
  writer::Text(out, head.model);
  out += R"(,"choices":[)";
}

void AppendTail(std::string& out, const ReplyHead& head, const Usage& usage) {
  out += R"(],"service_tier":null,"system_fingerprint":)";
  writer::TextOrNull(out, head.system_fingerprint);
  out += R"(,"usage":)";
  writer::UsageObject(out, usage, /*with_nulls=*/true);
}

void AppendCompletionChoice(std::string& out, const CompletionChoice& choice) {
  out += R"({"index":)";
  writer::Int(out, choice.index);
  out += R"(,"text":)";
  writer::Text(out, choice.text);
  out += R"(,"logprobs":)";
  writer::CompletionLogprobs(out, choice.logprobs, choice.text_offset);
  out += R"(,"finish_reason":)";
  writer::TextOrNull(out, choice.finish_reason);
  out += R"(,"stop_reason":)";
  writer::Stop(out, choice.stop_reason);
  out += R"(,"token_ids":)";
  writer::IdsOrNull(out, choice.token_ids);
  out += R"(,"prompt_logprobs":)";
  writer::PromptLogprobs(out, choice.prompt_logprobs);
  out += R"(,"prompt_token_ids":)";
  writer::IdsOrNull(out, choice.prompt_token_ids);
  out += R"(,"routed_experts":null})";
}

void AppendChatChoice(std::string& out, const ChatChoice& choice) {
  out += R"({"index":)";
  writer::Int(out, choice.index);
  out += R"(,"message":{"role":)";
  writer::Text(out, choice.role);
  out += R"(,"content":)";
  writer::Text(out, choice.content);
  out +=
      R"(,"refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null})";
  out += R"(,"logprobs":)";
  writer::ChatLogprobs(out, choice.logprobs);
  out += R"(,"finish_reason":)";
  writer::TextOrNull(out, choice.finish_reason);
  out += R"(,"stop_reason":)";
  writer::Stop(out, choice.stop_reason);
  out += R"(,"token_ids":)";
  writer::IdsOrNull(out, choice.token_ids);
  out += '}';
}

void AppendCard(std::string& out, const ModelCard& card) {
  out += R"({"id":)";
  writer::Text(out, card.id);
  out += R"(,"object":"model","created":)";
  writer::Int(out, card.created);
  out += R"(,"owned_by":"vllm","root":)";
  writer::TextOrNull(out, card.root);
  out += R"(,"parent":)";
  writer::TextOrNull(out, card.parent.value_or(""));
  out += R"(,"max_model_len":)";
  if (card.max_model_len) {
    writer::Int(out, *card.max_model_len);
  } else {
    out += "null";
  }
  out += R"(,"permission":[{"id":)";
  writer::Text(out, "modelperm-" + card.id);
  out += R"(,"object":"model_permission","created":)";
  writer::Int(out, card.created);
  out += R"(,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,)"
         R"("allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,)"
         R"("organization":"*","group":null,"is_blocking":false}]})";
}

}  // namespace

std::string CompletionBody(const ReplyHead& head, std::span<const CompletionChoice> choices,
                           const Usage& usage, const json::Value& kv_transfer_params) {
  std::string out;
  AppendHead(out, head, "text_completion");
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    AppendCompletionChoice(out, choices[i]);
  }
  AppendTail(out, head, usage);
  out += R"(,"kv_transfer_params":)";
  kv_transfer_params.DumpTo(out);
  out += R"(,"ec_transfer_params":null,"metrics":null})";
  return out;
}

std::string ChatBody(const ReplyHead& head, std::span<const ChatChoice> choices, const Usage& usage,
                     const ChatExtras& extras) {
  std::string out;
  AppendHead(out, head, "chat.completion");
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    AppendChatChoice(out, choices[i]);
  }
  AppendTail(out, head, usage);
  out += R"(,"prompt_logprobs":)";
  writer::PromptLogprobs(out, extras.prompt_logprobs);
  out += R"(,"prompt_token_ids":)";
  writer::IdsOrNull(out, extras.prompt_token_ids);
  out += R"(,"prompt_text":)";
  if (extras.prompt_text) {
    writer::Text(out, *extras.prompt_text);
  } else {
    out += "null";
  }
  out += R"(,"kv_transfer_params":)";
  extras.kv_transfer_params.DumpTo(out);
  out += '}';
  return out;
}

std::string ModelListBody(std::span<const ModelCard> cards) {
  std::string out = R"({"object":"list","data":[)";
  for (size_t i = 0; i < cards.size(); ++i) {
    if (i > 0) out += ',';
    AppendCard(out, cards[i]);
  }
  return out + "]}";
}

std::string TokenizeBody(std::span<const int32_t> tokens, int max_model_len,
                         const std::optional<std::vector<std::string>>& token_strs) {
  std::string out = R"({"count":)";
  writer::Int(out, static_cast<int64_t>(tokens.size()));
  out += R"(,"max_model_len":)";
  writer::Int(out, max_model_len);
  out += R"(,"tokens":)";
  writer::Ids(out, tokens);
  out += R"(,"token_strs":)";
  if (!token_strs) return out + "null}";
  out += '[';
  for (size_t i = 0; i < token_strs->size(); ++i) {
    if (i > 0) out += ',';
    writer::Text(out, (*token_strs)[i]);
  }
  return out + "]}";
}

std::string DetokenizeBody(std::string_view prompt) {
  std::string out = R"({"prompt":)";
  writer::Text(out, prompt);
  return out + "}";
}

}  // namespace llmd::openai
