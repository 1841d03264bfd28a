// What a plugin may read and must not change, written down so that two states can be compared.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "llmd/sched/testing/plugin_under_test.h"

namespace llmd::sched::testing {

// The state of a scene's request and snapshot at one moment. What plugins are given to write is
// left out: random numbers, charges, visits and response headers.
class Inputs {
 public:
  explicit Inputs(const Scene& scene);
  // What differs in `scene` now ("the request's target_model"), or "".
  std::string Changed(const Scene& scene) const;

 private:
  std::vector<std::pair<std::string, std::string>> parts_;  // name, bytes
};

}  // namespace llmd::sched::testing
