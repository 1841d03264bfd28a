// The entry point of kv_headroom.so.
#include "kv_headroom_scorer.h"
#include "llmd/sched/plugin_library.h"

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  return RegisterKvHeadroomScorer(registry);
}
