// Extractors read what a source brought from an endpoint.
#pragma once

#include <string_view>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Extractor : public virtual Plugin {
 public:
  // Updates `metrics` from a whole page; values the page lacks keep what they had. An error when
  // nothing known was found; it leaves `metrics` as it was. Called for one page of an endpoint at a
  // time, from any thread.
  virtual Status Extract(std::string_view page, const EndpointInfo& endpoint,
                         EndpointMetrics* metrics) = 0;
  // True when it reads the gauges whose age makes an endpoint stale.
  virtual bool reads_gauges() const { return false; }
};

// Extractors that need no page: they read names, addresses and labels when the membership changes.
class EndpointExtractor : public virtual Plugin {};

}  // namespace llmd::sched
