#include <algorithm>
#include <iterator>

#include "request_common.h"

namespace llmd::openai {
namespace {

constexpr std::string_view kNoMedia[] = {"mm_processor_kwargs", "media_io_kwargs"};

std::string MessageField(size_t index, std::string_view key) {
  return "messages." + std::to_string(index) + "." + std::string(key);
}

// Members of content parts that the API knows; any other (cache_control, …) is the template's.
constexpr std::string_view kPartMembers[] = {"type", "text", "refusal", "thinking"};

json::Value TextPart(json::Value text) {
  return json::Object{{"type", "text"}, {"text", std::move(text)}};
}

// Text parts in their plain form; anything else (images, audio, files) is named.
MaybeError ReadPart(const json::Value& part, size_t index, FieldReader& reader, json::Array* out) {
  if (part.is_string()) {
    out->push_back(TextPart(part));
    return std::nullopt;
  }
  const std::string& type = part["type"].AsString();
  if (type != "text" && type != "input_text" && type != "output_text" && type != "refusal" &&
      type != "thinking") {
    if (!part.is_object() || type.empty()) {
      reader.Fail(MessageField(index, "content"), "a list of content parts", part);
      return std::nullopt;
    }
    return NotImplementedField("messages[" + std::to_string(index) + "].content type " + type);
  }
  const json::Value& text = part[type == "refusal" || type == "thinking" ? type : "text"];
  if (!text.is_string()) {
    reader.Fail(MessageField(index, "content.text"), "a valid string", text);
    return std::nullopt;
  }
  json::Value read = TextPart(text);
  for (const auto& [key, value] : part.AsObject()) {
    if (std::find(std::begin(kPartMembers), std::end(kPartMembers), key) == std::end(kPartMembers))
      read.Set(key, value);
  }
  out->push_back(std::move(read));
  return std::nullopt;
}

MaybeError ReadContent(const json::Value& message, size_t index, FieldReader& reader,
                       json::Value* out) {
  const json::Value& content = message["content"];
  if (content.is_string() || content.is_null()) {
    *out = content;
    return std::nullopt;
  }
  if (!content.is_array()) {
    reader.Fail(MessageField(index, "content"), "a valid string or list", content);
    return std::nullopt;
  }
  json::Array parts;
  for (const json::Value& part : content.AsArray()) {
    if (auto e = ReadPart(part, index, reader, &parts)) return e;
  }
  *out = std::move(parts);
  return std::nullopt;
}

// Templates want the arguments as an object; the wire has them as JSON text. What is none becomes
// an empty object: it stands in the conversation for good, and a refusal would end that.
json::Value ToolArguments(const json::Value& arguments) {
  if (arguments.is_object()) return arguments;
  auto parsed = json::Parse(arguments.AsString());
  return parsed.ok() && parsed->is_object() ? std::move(*parsed) : json::Value(json::Object());
}

// As vLLM reads them: null and an empty list are no calls.
MaybeError ReadToolCalls(const json::Value& message, json::Value* out) {
  const json::Value* calls = message.Find("tool_calls");
  if (calls == nullptr || !calls->is_array() || calls->AsArray().empty()) return std::nullopt;
  json::Array read = calls->AsArray();
  for (json::Value& call : read) {
    if (!call.is_object())
      return BadRequest("assistant tool_calls entries must be objects.", "tool_calls");
    const json::Value* type = call.Find("type");
    json::Value* function = call.Find("function");
    if ((type != nullptr && type->AsString() != "function") || function == nullptr ||
        !function->is_object()) {
      return BadRequest("chat completions only support assistant tool_calls of type 'function'.",
                        "tool_calls");
    }
    function->Set("arguments", ToolArguments((*function)["arguments"]));
  }
  out->Set("tool_calls", std::move(read));
  return std::nullopt;
}

// The names that templates read it by.
void ReadReasoning(const json::Value& message, json::Value* out) {
  for (const char* name : {"reasoning", "reasoning_content"}) {
    const json::Value& reasoning = message[name];
    if (reasoning.is_null()) continue;
    for (const char* read : {"reasoning", "reasoning_content", "thinking"})
      out->Set(read, reasoning);
    return;
  }
}

// What a template is given of a message is a closed list, vLLM's: what an SDK adds to an answer
// that it sends back (refusal, audio, annotations: null) must not change the prompt.
MaybeError ReadMessage(const json::Value& message, size_t index, FieldReader& reader,
                       json::Array* out) {
  if (!message.is_object()) {
    reader.Fail("messages." + std::to_string(index), "a valid dictionary", message);
    return std::nullopt;
  }
  if (!message["role"].is_string()) {
    if (message.Find("role") == nullptr) {
      reader.Missing(MessageField(index, "role"));
    } else {
      reader.Fail(MessageField(index, "role"), "a valid string", message["role"]);
    }
    return std::nullopt;
  }
  const std::string& role = message["role"].AsString();
  json::Value content;
  if (auto e = ReadContent(message, index, reader, &content)) return e;
  json::Value read = json::Object{{"role", role}, {"content", std::move(content)}};
  if (role == "assistant") {
    if (auto e = ReadToolCalls(message, &read)) return e;
    ReadReasoning(message, &read);
  } else if (role == "tool") {
    if (const json::Value* id = message.Find("tool_call_id")) read.Set("tool_call_id", *id);
  } else if (role == "developer") {
    read.Set("tools", message["tools"]);
  }
  if (message["name"].is_string()) read.Set("name", message["name"]);
  out->push_back(std::move(read));
  return std::nullopt;
}

MaybeError ReadMessages(FieldReader& reader, json::Array* out) {
  const json::Value* messages = reader.Find("messages");
  if (messages == nullptr) {
    reader.Missing("messages");
    return std::nullopt;
  }
  if (!messages->is_array()) {
    reader.Fail("messages", "a valid list", *messages);
    return std::nullopt;
  }
  if (messages->AsArray().empty()) return BadRequest("messages cannot be empty.", "messages");
  for (size_t i = 0; i < messages->AsArray().size(); ++i) {
    if (auto e = ReadMessage(messages->AsArray()[i], i, reader, out)) return e;
  }
  return std::nullopt;
}

MaybeError ReadTools(FieldReader& reader, ChatPrompt* out) {
  const json::Value* tools = reader.Present("tools");
  if (tools == nullptr) return std::nullopt;
  if (!tools->is_array()) {
    reader.Fail("tools", "a valid list", *tools);
    return std::nullopt;
  }
  if (tools->AsArray().empty()) return BadRequest("tools cannot be an empty array.", "tools");
  out->tools = *tools;
  return std::nullopt;
}

MaybeError ReadToolChoice(const FieldReader& reader, const ChatPrompt& prompt) {
  const json::Value* choice = reader.Present("tool_choice");
  if (prompt.tools.is_null()) {
    if (choice == nullptr || choice->AsString() == "none" || choice->AsString() == "auto") {
      return std::nullopt;
    }
    return BadRequest("When using `tool_choice`, `tools` must be set.", "tool_choice");
  }
  if (choice != nullptr && choice->AsString() == "none") return std::nullopt;
  if (choice == nullptr || choice->AsString() == "auto") {
    return BadRequest(
        "\"auto\" tool choice requires --enable-auto-tool-choice and "
        "--tool-call-parser to be set; this server has neither. Use \"none\".",
        "tool_choice");
  }
  return NotImplementedField("tool_choice");
}

MaybeError ReadChatLogprobs(FieldReader& reader, CommonRequest* out) {
  bool wanted = false;
  reader.ReadOrDefault("logprobs", &wanted);
  std::optional<int> top;
  if (auto e = ReadStrictInt(reader, "top_logprobs", &top)) return e;
  if (top && *top < -1) {
    return BadRequest("`top_logprobs` must be a positive value or -1.", "top_logprobs",
                      std::to_string(*top));
  }
  if (top && *top != 0 && !wanted) {
    return BadRequest("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs");
  }
  if (wanted) out->logprobs = top.value_or(0);
  return std::nullopt;
}

MaybeError ReadMaxTokens(FieldReader& reader, CommonRequest* out) {
  std::string_view field = "max_tokens";
  reader.Read("max_tokens", &out->max_tokens);
  if (reader.Present("max_completion_tokens") != nullptr) {
    field = "max_completion_tokens";
    reader.Read("max_completion_tokens", &out->max_tokens);
  }
  if (!out->max_tokens || *out->max_tokens >= 1 || reader.Error()) return std::nullopt;
  const std::string shown = std::to_string(*out->max_tokens);
  return BadRequest(std::string(field) + " must be at least 1, got " + shown + ".", field, shown);
}

void ReadKwargs(FieldReader& reader, ChatPrompt* out) {
  const json::Value* kwargs = reader.Present("chat_template_kwargs");
  if (kwargs != nullptr && !kwargs->is_object()) {
    return reader.Fail("chat_template_kwargs", "a valid dictionary", *kwargs);
  }
  if (kwargs != nullptr) out->chat_template_kwargs = *kwargs;
  std::optional<std::string> effort;
  reader.Read("reasoning_effort", &effort);
  if (effort && out->chat_template_kwargs.Find("reasoning_effort") == nullptr) {
    out->chat_template_kwargs.Set("reasoning_effort", *effort);
  }
}

}  // namespace

MaybeError ReadChatPrompt(FieldReader& reader, const ParseLimits& limits, ChatPrompt* out) {
  if (auto e = ReadMessages(reader, &out->messages)) return e;
  if (auto e = ReadTools(reader, out)) return e;
  reader.Read("add_generation_prompt", &out->add_generation_prompt);
  reader.Read("continue_final_message", &out->continue_final_message);
  if (const json::Value* documents = reader.Present("documents")) {
    if (!documents->is_array()) reader.Fail("documents", "a valid list", *documents);
    out->documents = *documents;
  }
  ReadKwargs(reader, out);
  reader.Read("chat_template", &out->chat_template);
  if (auto e = reader.Error()) return e;
  if (out->chat_template && !limits.trust_request_chat_template) {
    return BadRequest(
        "Chat template is passed with request, but --trust-request-chat-template is "
        "not set. Refused request with untrusted chat template.",
        "chat_template");
  }
  if (out->add_generation_prompt && out->continue_final_message) {
    return BadRequest(
        "Cannot set both `continue_final_message` and `add_generation_prompt` to "
        "True.",
        "continue_final_message");
  }
  return std::nullopt;
}

MaybeError ParseChat(std::string_view body, const ParseLimits& limits, ChatRequest* out) {
  json::Value object;
  if (auto e = ParseBody(body, &object)) return e;
  FieldReader reader(object, "body");
  out->add_special_tokens = false;
  if (auto e = ReadCommon(reader, limits, out)) return e;
  if (auto e = RefuseFields(reader, kNoMedia)) return e;
  if (auto e = ReadMaxTokens(reader, out)) return e;
  if (auto e = ReadChatLogprobs(reader, out)) return e;
  reader.ReadOrDefault("return_prompt_text", &out->return_prompt_text);
  if (auto e = ReadChatPrompt(reader, limits, &out->prompt)) return e;
  if (auto e = ReadToolChoice(reader, out->prompt)) return e;
  return CheckCommon(*out, limits);
}

}  // namespace llmd::openai
