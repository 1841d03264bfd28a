// A conversation to the text of a prompt, by vLLM's and transformers' rules.
#include <array>
#include <string>

#include "llmd/engine/serving/prompt.h"

namespace llmd::engine::serving {
namespace {

using openai::BadRequest;
using openai::MaybeError;

// What Python's str.rstrip takes.
std::string_view TrimRight(std::string_view s) {
  static constexpr std::array<std::string_view, 29> kBlanks = {
      " ",      "\t",     "\n",     "\r",     "\f",     "\v",     "\x1c",   "\x1d",
      "\x1e",   "\x1f",   "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
      "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
      "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  for (bool more = true; more;) {
    more = false;
    for (const std::string_view blank : kBlanks) {
      if (!s.ends_with(blank)) continue;
      s.remove_suffix(blank.size());
      more = true;
    }
  }
  return s;
}

std::string JoinParts(const json::Array& parts, bool with_empty) {
  std::string text;
  bool first = true;
  for (const json::Value& part : parts) {
    const std::string& piece = part["text"].AsString();
    if (piece.empty() && !with_empty) continue;
    if (!first) text += '\n';
    first = false;
    text += piece;
  }
  return text;
}

// Templates either print a message's content or loop over it; each gets the form it reads. A tool's
// result is text for both.
void GiveContentForm(json::Value& message, bool content_is_list) {
  json::Value content = message["content"];
  if (!content_is_list) {
    if (content.is_array()) content = JoinParts(content.AsArray(), /*with_empty=*/false);
    if (content.is_null()) content = "";
  } else if (message["role"].AsString() == "tool") {
    if (content.is_array()) content = JoinParts(content.AsArray(), /*with_empty=*/true);
    if (content.is_null()) content = "";
  } else if (content.is_string()) {
    json::Array parts;
    parts.push_back(json::Object{{"type", "text"}, {"text", std::move(content)}});
    content = std::move(parts);
  } else if (content.is_null()) {
    content = json::Array();
  }
  message.Set("content", std::move(content));
}

json::Array TemplateMessages(const json::Array& messages, const text::ChatTemplate& chosen) {
  json::Array out = messages;
  for (json::Value& message : out) {
    GiveContentForm(message, chosen.content_is_list());
    // Most templates have no such role and would drop the message or print a role that the model
    // has never seen.
    if (message["role"].AsString() == "developer" && !chosen.HasLiteral("developer")) {
      message.Set("role", "system");
      message.Erase("tools");
    }
  }
  return out;
}

json::Value SpecialToken(const text::Tokenizer& tokenizer, text::TokenId id) {
  return id < 0 ? json::Value("") : json::Value(tokenizer.TokenString(id));
}

json::Value TemplateVariables(const ServingContext& context, const openai::ChatPrompt& chat,
                              json::Array messages) {
  const text::TokenizerSpec& spec = context.tokenizer.spec();
  json::Value variables{json::Object{}};
  variables.Set("messages", std::move(messages));
  variables.Set("tools", chat.tools);
  variables.Set("documents", chat.documents);
  variables.Set("add_generation_prompt", chat.add_generation_prompt);
  variables.Set("bos_token", SpecialToken(context.tokenizer, spec.bos));
  variables.Set("eos_token", SpecialToken(context.tokenizer, spec.eos));
  for (const auto& [key, value] : chat.chat_template_kwargs.AsObject()) variables.Set(key, value);
  return variables;
}

// transformers' way to find the end of the last message: a mark behind its text, and the prompt is
// cut where the template put the mark.
constexpr std::string_view kMark = "CONTINUE_FINAL_MESSAGE_TAG ";

MaybeError NotContinued(std::string_view why) {
  return BadRequest("continue_final_message is set but " + std::string(why),
                    "continue_final_message");
}

// The text that goes on, or null when the message has none.
json::Value* TextToContinue(json::Value& message) {
  json::Value* content = message.Find("content");
  if (content == nullptr || content->is_string()) return content;
  json::Array* parts = content->MutableArray();
  for (size_t i = parts == nullptr ? 0 : parts->size(); i-- > 0;) {
    if (json::Value* text = (*parts)[i].Find("text")) return text;
  }
  return nullptr;
}

MaybeError CutAtMark(std::string_view last, std::string* text) {
  const size_t at = text->rfind(kMark.substr(0, kMark.size() - 1));
  const std::string_view wanted = TrimRight(last);
  const size_t begin = wanted.find_first_not_of(" \t\r\n\f\v");
  const std::string_view trimmed = begin == wanted.npos ? "" : wanted.substr(begin);
  if (at == std::string::npos || text->find(trimmed) == std::string::npos) {
    return NotContinued(
        "the final message does not appear in the chat after applying the chat template.");
  }
  const bool kept_blanks = text->compare(at, kMark.size(), kMark) == 0;
  text->resize(at);
  // What the template trimmed off behind the mark it would have trimmed off the message.
  if (!kept_blanks) text->resize(TrimRight(*text).size());
  return std::nullopt;
}

MaybeError Render(const ServingContext& context, const openai::ChatPrompt& chat,
                  const text::ChatTemplate& chosen, std::string* text) {
  json::Array messages = TemplateMessages(chat.messages, chosen);
  std::string last;
  if (chat.continue_final_message) {
    json::Value* content = TextToContinue(messages.back());
    if (content == nullptr) return NotContinued("the final message has no text to continue.");
    last = content->AsString();
    *content = last + std::string(kMark);
  }
  auto rendered = chosen.Render(TemplateVariables(context, chat, std::move(messages)));
  if (!rendered.ok()) return BadRequest(rendered.status().message(), "messages");
  *text = std::move(*rendered);
  return chat.continue_final_message ? CutAtMark(last, text) : std::nullopt;
}

}  // namespace

MaybeError RenderChat(const ServingContext& context, const openai::ChatPrompt& chat,
                      std::string* text) {
  const text::ChatTemplates& known = context.chat_templates;
  if (chat.chat_template) {
    // The name of one of the model's, or a template itself.
    const auto named = known.Find(*chat.chat_template);
    if (named.ok()) return Render(context, chat, **named, text);
    const auto parsed = text::ChatTemplate::Parse(*chat.chat_template);
    if (!parsed.ok()) return BadRequest(parsed.status().message(), "chat_template");
    return Render(context, chat, **parsed, text);
  }
  if (known.empty()) {
    return BadRequest(
        "The model file has no chat template and the server was started without "
        "--chat-template.",
        "messages");
  }
  const auto chosen = known.Choose(!chat.tools.is_null());
  if (!chosen.ok()) return BadRequest(chosen.status().message(), "messages");
  return Render(context, chat, **chosen, text);
}

}  // namespace llmd::engine::serving
