// Sources say which page of an endpoint is fetched and how often; the scraper does the fetching.
#pragma once

#include <cstdint>
#include <string>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

struct PageSpec {
  std::string path = "/metrics";
  uint16_t port = 0;    // 0 = the endpoint's own
  Duration interval{};  // 0 = --refresh-metrics-interval
};

class Source : public virtual Plugin {
 public:
  virtual const PageSpec& page() const = 0;
};

}  // namespace llmd::sched
