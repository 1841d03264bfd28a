// Chat templates: the Jinja subset that published models use, as transformers runs it (trim_blocks,
// lstrip_blocks, undefined is empty, tojson without HTML escapes). Steps and output are bounded.
#pragma once

#include <memory>
#include <string>
#include <string_view>

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
  // True when the template iterates message.content (so parts go in as a list), from its syntax
  // tree.
  bool content_is_list() const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::text
