// Several decisions under one request id: a client that tries again keeps its id, so that each of
// its tries is routed, or refused, on its own.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "llmd/json.h"
#include "llmd/sched/decision.h"

namespace llmd::sched {

// The newest decision as ToJson(DecisionTrace) writes it, and the others, oldest first, as its
// member "earlier", which is absent when there are none. `tries` is ordered by time and not empty.
json::Value TriesToJson(std::span<const DecisionTrace> tries);
// Reads that, or a single decision; oldest first.
StatusOr<std::vector<DecisionTrace>> TriesFromJson(const json::Value& value);
// What `llmd explain` prints: a list of the tries with the outcome of each, then each as
// ToText(DecisionTrace) shows it, oldest first; of a single one only that.
std::string TriesToText(std::span<const DecisionTrace> tries);

}  // namespace llmd::sched
