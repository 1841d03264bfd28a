// kv-headroom-scorer: prefers the endpoint that keeps the most free KV cache once this request has
// grown to its full length.
#pragma once

#include "llmd/sched/plugin.h"

llmd::Status RegisterKvHeadroomScorer(llmd::sched::PluginRegistry& registry);
