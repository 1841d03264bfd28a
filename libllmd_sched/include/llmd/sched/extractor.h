// Extractors read what a source brought from an endpoint.
#pragma once

#include <string_view>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Extractor : public virtual Plugin {
 public:
  // Updates `metrics` from a whole page; values the page lacks keep what they had. An error when
  // nothing known was found.
  virtual Status Extract(std::string_view page, const EndpointInfo& endpoint,
                         EndpointMetrics* metrics) = 0;
};

}  // namespace llmd::sched
