#include "plugins/builtin.h"
#include "plugins/parser/json_parser.h"

namespace llmd::sched {

Status RegisterSglangHttpParser(PluginRegistry& registry) {
  return AddJsonParser(
      registry, "sglanghttp-parser",
      "SGLang's own generate endpoint; extra_key separates caches as cache_salt does.",
      {{"generate", Api::kGenerate}});
}

}  // namespace llmd::sched
