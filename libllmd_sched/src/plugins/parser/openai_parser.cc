// OpenAI, Anthropic and vLLM generate bodies: the same reader, other paths and usage names
// (endpoint-picker.md §2.8).
#include <array>

#include "llmd/sched/parser.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/parser/body_reader.h"

namespace llmd::sched {
namespace {

struct Route {
  std::string_view suffix;
  Api api;
};
using Routes = std::vector<Route>;

int64_t Read(const json::Value& usage, std::string_view a, std::string_view b) {
  const json::Value* v = usage.Find(a);
  if (v == nullptr) v = usage.Find(b);
  return v && v->is_number() ? static_cast<int64_t>(v->AsDouble()) : -1;
}

void Merge(int64_t value, int64_t* into) {
  if (value >= 0) *into = value;
}

std::string_view PromptOf(const RequestContext& request) {
  for (const char* key : {"prompt", "messages", "input"}) {
    if (const std::string_view raw = RawMember(request, key); !raw.empty()) return raw;
  }
  return {};
}

class JsonParser final : public Parser {
 public:
  explicit JsonParser(Routes routes) : routes_(std::move(routes)) {}

  std::vector<std::string_view> PathSuffixes() const override {
    std::vector<std::string_view> out;
    for (const Route& r : routes_) out.push_back(r.suffix);
    return out;
  }
  Status Parse(RequestContext& request) override {
    size_t longest = 0;
    for (const Route& r : routes_) {
      if (r.suffix.size() <= longest || !request.path.ends_with(r.suffix)) continue;
      longest = r.suffix.size();
      request.api = r.api;
    }
    LLMD_RETURN_IF_ERROR(ReadBody(request));
    request.prompt_json = PromptOf(request);
    return OkStatus();
  }
  void ReadUsage(std::string_view json_object, Usage* usage) const override {
    const StatusOr<json::Value> value = json::Parse(json_object);
    if (!value.ok() || !value->is_object()) return;
    Merge(Read(*value, "prompt_tokens", "input_tokens"), &usage->prompt_tokens);
    Merge(Read(*value, "completion_tokens", "output_tokens"), &usage->completion_tokens);
    const json::Value* details = value->Find("prompt_tokens_details");
    if (details == nullptr) details = value->Find("input_tokens_details");
    if (details) Merge(Read(*details, "cached_tokens", "cached_tokens"), &usage->cached_tokens);
    Merge(Read(*value, "cache_read_input_tokens", "cache_read_input_tokens"),
          &usage->cached_tokens);
  }

 private:
  const Routes routes_;
};

Status Add(PluginRegistry& registry, std::string type, std::string help, Routes routes) {
  return AddPlugin(registry,
                   {.type = std::move(type),
                    .kind = "parser",
                    .help = std::move(help),
                    .make = [routes](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                      Params params(args.parameters);
                      return Done(params, std::make_unique<JsonParser>(routes));
                    }});
}

}  // namespace

Status RegisterOpenAiParser(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(Add(registry, "openai-parser", "OpenAI bodies and usage.",
                           {{"chat/completions", Api::kChat},
                            {"completions", Api::kCompletions},
                            {"embeddings", Api::kEmbeddings},
                            {"responses", Api::kResponses},
                            {"conversations", Api::kResponses},
                            {"chat/completions/render", Api::kChat},
                            {"completions/render", Api::kCompletions},
                            {"images/generations", Api::kImages}}));
  LLMD_RETURN_IF_ERROR(
      Add(registry, "anthropic-parser", "Anthropic messages.",
          {{"messages", Api::kMessages}, {"messages/count_tokens", Api::kMessages}}));
  LLMD_RETURN_IF_ERROR(Add(registry, "vllmhttp-parser", "vLLM's token-in, token-out endpoint.",
                           {{"inference/v1/generate", Api::kGenerate}}));
  return Add(registry, "sglanghttp-parser",
             "SGLang's own generate endpoint; extra_key separates caches as cache_salt does.",
             {{"generate", Api::kGenerate}});
}

}  // namespace llmd::sched
