// Chat templates: the Jinja subset that published models use, as transformers runs it (trim_blocks,
// lstrip_blocks, undefined is empty, tojson without HTML escapes). Steps and output are bounded.
// What is and what is not there: docs/reference/templates.md.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd::text {

struct TemplateLimits {
  size_t max_steps = 2'000'000;
  size_t max_output_bytes = 64 << 20;
  int max_depth = 100;
};

// A parsed template. Thread-safe.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT with line and column.
  static StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                       TemplateLimits limits = {});
  ~ChatTemplate();

  // Renders with the members of `variables` as globals (messages, tools, add_generation_prompt,
  // bos_token, …). INVALID_ARGUMENT: raise_exception's message, a type error, an unknown filter;
  // RESOURCE_EXHAUSTED: a limit.
  StatusOr<std::string> Render(const json::Value& variables) const;
  // True when content goes in as a list of parts: the template loops over the content of an element
  // of `messages`, found in its syntax tree by vLLM's rule.
  bool content_is_list() const;
  // True when an expression of the template has exactly this string as a literal.
  bool HasLiteral(std::string_view text) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The templates of one model, by name. One that does not parse is kept as its fault: the model can
// still complete text. Thread-safe once filled.
class ChatTemplates {
 public:
  // An empty name is "default". A name that is there already is replaced.
  void Add(std::string_view name, std::string_view source);
  bool empty() const { return templates_.empty(); }
  // The first template that does not parse, with its name; OK when all do.
  Status fault() const;
  // As transformers chooses: "tool_use" for a request with tools where there is one, else
  // "default". NOT_FOUND when the model has none, INVALID_ARGUMENT for one that does not parse. The
  // pointer is good as long as this object.
  StatusOr<const ChatTemplate*> Choose(bool with_tools) const;
  // NOT_FOUND for an unknown name.
  StatusOr<const ChatTemplate*> Find(std::string_view name) const;

 private:
  std::vector<std::pair<std::string, StatusOr<std::unique_ptr<ChatTemplate>>>> templates_;
};

}  // namespace llmd::text
