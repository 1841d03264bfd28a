// What the parsers of JSON bodies share: one reader, other paths and usage names
// (docs/reference/parsers.md).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmd/sched/parser.h"

namespace llmd::sched {

// Reads token counts under the names of OpenAI ("prompt_tokens", "input_tokens") and Anthropic.
// Counts that `json_object` does not say stay as they are, so that later events add to earlier
// ones.
void ReadJsonUsage(std::string_view json_object, Usage* usage);
// Reads a JSON body that stands at request.body[begin, begin + size): members, model, prompt.
// request.api is set. INVALID_ARGUMENT for what is no JSON object or lacks what its API needs
// (`messages`, `prompt`, `input`), or has it of another type.
Status ParseJson(RequestContext& request, size_t begin, size_t size);

// A parser whose requests differ by path only. Immutable.
class JsonParser : public Parser {
 public:
  struct Route {
    std::string_view suffix;
    Api api;
    bool skip_response = false;  // its answer tells the picker nothing
  };
  explicit JsonParser(std::vector<Route> routes) : routes_(std::move(routes)) {}
  std::vector<std::string_view> PathSuffixes() const override;
  Status Parse(RequestContext& request) override;
  void ReadUsage(std::string_view json_object, Usage* usage) const override {
    ReadJsonUsage(json_object, usage);
  }

 private:
  const std::vector<Route> routes_;
};

// Registers a JsonParser under `type`.
Status AddJsonParser(PluginRegistry& registry, std::string type, std::string help,
                     const std::vector<JsonParser::Route>& routes);

}  // namespace llmd::sched
