// Lets the Python oracle tests reach the tokenizer and the chat templates: JSON lines on stdin, one
// reply line each.
//   {"spec": {"pre", "tokens", "types", "merges"}}        → {"ok": true}
//   {"encode": "text"}                                     → {"ids": [...], "text": "decoded"}
//   {"template": "source", "variables": {...}}             → {"text": "..."} or {"error": "..."}
//   {"template": "source", "form": true}                   → {"content_is_list": true}
#include <iostream>
#include <string>

#include "llmd/json.h"
#include "llmd/text/chat_template.h"
#include "llmd/text/tokenizer.h"

namespace {

using llmd::json::Array;
using llmd::json::Value;

Value ErrorReply(const llmd::Status& status) {
  Value reply;
  reply.Set("error", status.ToString());
  return reply;
}

Value Load(const Value& in, std::unique_ptr<llmd::text::Tokenizer>& tokenizer) {
  llmd::text::TokenizerSpec spec;
  spec.pre = in["pre"].AsString();
  for (const Value& v : in["tokens"].AsArray()) spec.tokens.push_back(v.AsString());
  for (const Value& v : in["types"].AsArray())
    spec.types.push_back(static_cast<llmd::text::TokenType>(v.AsInt()));
  for (const Value& v : in["merges"].AsArray()) spec.merges.push_back(v.AsString());
  auto made = llmd::text::MakeTokenizer(std::move(spec));
  if (!made.ok()) return ErrorReply(made.status());
  tokenizer = std::move(*made);
  Value reply;
  reply.Set("ok", true);
  return reply;
}

Value Encode(const std::string& text, const llmd::text::Tokenizer& tokenizer) {
  const auto ids = tokenizer.Encode(text, false);
  const auto decoded = tokenizer.Decode(ids, true);
  if (!decoded.ok()) return ErrorReply(decoded.status());
  Value reply;
  reply.Set("ids", Array(ids.begin(), ids.end()));
  reply.Set("text", *decoded);
  return reply;
}

Value Render(const Value& in) {
  const auto made = llmd::text::ChatTemplate::Parse(in["template"].AsString());
  if (!made.ok()) return ErrorReply(made.status());
  if (in["form"].AsBool()) {
    Value form;
    form.Set("content_is_list", (*made)->content_is_list());
    return form;
  }
  const auto text = (*made)->Render(in["variables"]);
  if (!text.ok()) return ErrorReply(text.status());
  Value reply;
  reply.Set("text", *text);
  return reply;
}

}  // namespace

int main() {
  std::unique_ptr<llmd::text::Tokenizer> tokenizer;
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = llmd::json::Parse(line);
    Value reply;
    if (!request.ok()) {
      reply = ErrorReply(request.status());
    } else if (request->Find("spec") != nullptr) {
      reply = Load((*request)["spec"], tokenizer);
    } else if (request->Find("template") != nullptr) {
      reply = Render(*request);
    } else if (tokenizer != nullptr) {
      reply = Encode((*request)["encode"].AsString(), *tokenizer);
    } else {
      reply = ErrorReply(llmd::FailedPrecondition("no spec has been sent"));
    }
    std::cout << reply.Dump() << '\n' << std::flush;
  }
  return 0;
}
