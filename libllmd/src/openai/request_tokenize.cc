#include "request_common.h"

namespace llmd::openai {

MaybeError ParseTokenize(std::string_view body, const ParseLimits& limits, TokenizeRequest* out) {
  json::Value object;
  if (auto e = ParseBody(body, &object)) return e;
  FieldReader reader(object, "body");
  reader.Read("model", &out->model);
  reader.ReadOrDefault("return_token_strs", &out->return_token_strs);
  if (reader.Find("messages") != nullptr) {
    out->add_special_tokens = false;
    ChatPrompt prompt;
    if (auto e = ReadChatPrompt(reader, limits, &prompt)) return e;
    out->input = std::move(prompt);
  } else {
    std::string prompt;
    if (reader.Find("prompt") == nullptr) reader.Missing("prompt");
    reader.Read("prompt", &prompt);
    out->input = std::move(prompt);
  }
  reader.Read("add_special_tokens", &out->add_special_tokens);
  return reader.Error();
}

MaybeError ParseDetokenize(std::string_view body, DetokenizeRequest* out) {
  json::Value object;
  if (auto e = ParseBody(body, &object)) return e;
  FieldReader reader(object, "body");
  reader.Read("model", &out->model);
  if (reader.Find("tokens") == nullptr) reader.Missing("tokens");
  reader.ReadIntList("tokens", &out->tokens);
  return reader.Error();
}

}  // namespace llmd::openai
