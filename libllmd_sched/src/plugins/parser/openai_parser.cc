#include "plugins/builtin.h"
#include "plugins/parser/json_parser.h"

namespace llmd::sched {

Status RegisterOpenAiParser(PluginRegistry& registry) {
  return AddJsonParser(registry, "openai-parser",
                       "OpenAI bodies, and usage from answers and event streams.",
                       {{"chat/completions", Api::kChat},
                        {"completions", Api::kCompletions},
                        {"embeddings", Api::kEmbeddings},
                        {"responses", Api::kResponses},
                        {"conversations", Api::kConversations},
                        {"chat/completions/render", Api::kChat},
                        {"completions/render", Api::kCompletions},
                        {"images/generations", Api::kImages}});
}

}  // namespace llmd::sched
