// What a run found, as text and as JSON ("llmd-bench/1", docs/load-testing.md).
#pragma once

#include <string>

#include "cli/bench/run.h"
#include "llmd/json.h"

namespace llmd::bench {

json::Value JsonReport(const Options& options, const Result& result);
std::string TextReport(const Options& options, const Result& result);
// Failures by kind, those that happened: "refused", "http_429", "stream_cut".
std::vector<std::pair<std::string, uint64_t>> FailureCounts(const Tally& tally);

}  // namespace llmd::bench
