// What a configuration allows and its author probably did not mean.
#pragma once

#include <string>
#include <vector>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"

namespace llmd::sched {

// A line each, for the start-up log and `lint`. `graph` is complete.
std::vector<std::string> DoubtsOf(const Graph& graph, const LoadOptions& options);

}  // namespace llmd::sched
