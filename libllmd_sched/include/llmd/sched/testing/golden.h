// Golden decisions: requests, endpoints and the whole decision for each, in one JSON file that
// other languages read too. docs/custom-plugins.md has the format.
#pragma once

#include <string>

#include "llmd/sched/plugin.h"
#include "llmd/status.h"

namespace llmd::sched::testing {

struct GoldenOptions {
  std::string path;                          // of the JSON file
  std::string config_yaml;                   // EndpointPickerConfig
  const PluginRegistry* registry = nullptr;  // null = BuiltinPlugins()
  uint64_t seed = 1;
  double tolerance = 1e-9;  // relative, of numbers; everything else must be equal
  bool update = UpdateRequested();

  // True when LLMD_UPDATE_GOLDEN is set to something but 0.
  static bool UpdateRequested();
};

// Puts the cases of the file through one scheduler, in order, and compares each decision with the
// file's; with `update` writes them there instead. FAILED_PRECONDITION names the case, the place in
// the decision, what was wanted and what came.
Status CheckGolden(const GoldenOptions& options);

}  // namespace llmd::sched::testing
