// Profile files: YAML with the key names of inference-perf
// (https://github.com/kubernetes-sigs/inference-perf), as far as docs/load-testing.md lists them.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/options.h"

namespace llmd::bench {

// INVALID_ARGUMENT names file, line and key for every key that is not understood; NOT_FOUND. The
// sections named by `without` are left out unread: one that the file lacks is an error.
StatusOr<Options> LoadProfile(const std::string& path, const std::vector<std::string>& without);

}  // namespace llmd::bench
