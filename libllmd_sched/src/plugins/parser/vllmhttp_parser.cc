#include "plugins/builtin.h"
#include "plugins/parser/json_parser.h"

namespace llmd::sched {

Status RegisterVllmHttpParser(PluginRegistry& registry) {
  return AddJsonParser(registry, "vllmhttp-parser",
                       "vLLM's token-in, token-out endpoint: token_ids and features.",
                       {{"inference/v1/generate", Api::kGenerate}});
}

}  // namespace llmd::sched
