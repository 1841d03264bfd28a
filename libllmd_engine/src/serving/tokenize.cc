#include "llmd/engine/serving/prompt.h"
#include "llmd/engine/serving/reply.h"
#include "llmd/openai/response.h"

namespace llmd::engine::serving {

openai::MaybeError Tokenize(const ServingContext& context, std::string_view body,
                            std::string* out) {
  openai::TokenizeRequest request;
  if (auto e = openai::ParseTokenize(body, context.options.parse, &request)) return e;
  if (auto e = CheckModel(context, request.model)) return e;
  std::string text;
  if (const auto* chat = std::get_if<openai::ChatPrompt>(&request.input)) {
    if (auto e = RenderChat(context, *chat, &text)) return e;
  } else {
    text = std::move(std::get<std::string>(request.input));
  }
  const std::vector<text::TokenId> ids = context.tokenizer.Encode(text, request.add_special_tokens);
  std::optional<std::vector<std::string>> strings;
  if (request.return_token_strs) {
    strings.emplace();
    for (const text::TokenId id : ids) strings->emplace_back(context.tokenizer.TokenString(id));
  }
  *out = openai::TokenizeBody(ids, context.options.max_model_len, strings);
  return std::nullopt;
}

openai::MaybeError Detokenize(const ServingContext& context, std::string_view body,
                              std::string* out) {
  openai::DetokenizeRequest request;
  if (auto e = openai::ParseDetokenize(body, &request)) return e;
  if (auto e = CheckModel(context, request.model)) return e;
  PreparedPrompt prompt;
  if (auto e = TakeIds(context, std::move(request.tokens), /*want_text=*/true, &prompt)) return e;
  *out = openai::DetokenizeBody(prompt.text);
  return std::nullopt;
}

std::string ModelsBody(const ServingContext& context) {
  std::vector<openai::ModelCard> cards;
  cards.reserve(context.options.model_names.size());
  for (const std::string& name : context.options.model_names) {
    cards.push_back({name, context.options.model_root, std::nullopt, context.options.created,
                     context.options.max_model_len});
  }
  return openai::ModelListBody(cards);
}

}  // namespace llmd::engine::serving
