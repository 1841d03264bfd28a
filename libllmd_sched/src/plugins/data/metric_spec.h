// "name{label=value,…}" as configurations write it: which samples of a Prometheus page are meant.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/status.h"

namespace llmd::sched {

struct MetricSpec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> labels = {};  // all must match
  // `sample_labels` as PromSample has them.
  bool Matches(std::string_view sample_labels) const;
};

// INVALID_ARGUMENT says what is wrong with `text`. Values may stand in double quotes.
StatusOr<MetricSpec> ParseMetricSpec(std::string_view text);

}  // namespace llmd::sched
