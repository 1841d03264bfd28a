#include "llmd/sched/plugin_library.h"

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  return llmd::NotFound("no accelerator " + std::to_string(registry.Types().size()));
}
