#include "plugins/builtin.h"
#include "plugins/producer/precise_producer.h"

namespace llmd::sched {

Status RegisterPrecisePrefixCacheProducer(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "precise-prefix-cache-producer",
                    .kind = "producer",
                    .help = "Matches prompts with an index of the KV blocks that endpoints hold. "
                            "Needs real tokens (token-producer with vllm, or token prompts).",
                    .params = PreciseHelp(),
                    .make = MakePrecise<PreciseProducer>});
}

}  // namespace llmd::sched
