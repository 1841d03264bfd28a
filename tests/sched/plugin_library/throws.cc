#include <stdexcept>

#include "llmd/sched/plugin_library.h"

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  throw std::runtime_error("licence file missing on host " +
                           std::to_string(registry.Types().size()));
}
