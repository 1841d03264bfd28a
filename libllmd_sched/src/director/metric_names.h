// What the picker's series were called before (docs/metrics.md, "Older names").
#pragma once

#include "llmd/metrics.h"

namespace llmd::sched {

// Exposes every llm_d_epp_* family under its older names too; costs nothing until a scrape.
void AddOldNames(MetricsRegistry& registry);

}  // namespace llmd::sched
