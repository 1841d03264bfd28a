// Reads of the machine's clocks by the calling thread.
#pragma once

#include <cstdint>

namespace llmd::sched::testing {

// How many there were so far: clock_gettime (std::chrono's clocks), time and gettimeofday. Works
// in programs that link the kit; see SeesClockReads.
uint64_t ClockReadsSoFar();
// False where reads cannot be seen: under a sanitizer, which has these functions for itself, and
// where the kit stands in a shared library.
bool SeesClockReads();

}  // namespace llmd::sched::testing
