// Sources say which page of an endpoint is fetched and how often; the scraper does the fetching.
#pragma once

#include "llmd/sched/data/page.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Source : public virtual Plugin {
 public:
  virtual const PageSpec& page() const = 0;
};

// Stands for the pool's own changes: what hangs on it is told of endpoints, not of pages.
class NotificationSource : public virtual Plugin {};

}  // namespace llmd::sched
