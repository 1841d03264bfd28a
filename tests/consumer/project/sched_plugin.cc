#include "llmd/sched/plugin_library.h"

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  return registry.Types().empty() ? llmd::OkStatus() : llmd::Internal("not empty");
}
