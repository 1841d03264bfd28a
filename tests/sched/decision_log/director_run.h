// decision_log --director.
#pragma once

#include <cstdint>

#include "llmd/status.h"

namespace llmd::sched {

// A manual director with flow control, stages and a producer that waits, through endpoints that
// come and go and reloads: prints a JSON object a request.
Status RunDirector(uint64_t seed, uint64_t requests);

}  // namespace llmd::sched
