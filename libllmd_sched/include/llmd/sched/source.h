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
  // The endpoint's label that holds the address to ask; "" = the endpoint's own address.
  std::string address_label = {};
};

class Source : public virtual Plugin {
 public:
  virtual const PageSpec& page() const = 0;
};

// Stands for the pool's own changes: what hangs on it is told of endpoints, not of pages.
class NotificationSource : public virtual Plugin {};

}  // namespace llmd::sched
