#include "llmd/sched/plugin_library.h"

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  return llmd::sched::AddPlugin(registry,
                                {.type = "half-scorer", .kind = "scorer", .help = "Half."});
}
