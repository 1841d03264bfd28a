#include "plugins/builtin.h"
#include "plugins/parser/json_parser.h"

namespace llmd::sched {

Status RegisterAnthropicParser(PluginRegistry& registry) {
  return AddJsonParser(
      registry, "anthropic-parser",
      "Anthropic messages, and usage merged over the events of an answer. Answers of "
      "count_tokens are not looked at.",
      {{"messages", Api::kMessages}, {"messages/count_tokens", Api::kMessages, true}});
}

}  // namespace llmd::sched
