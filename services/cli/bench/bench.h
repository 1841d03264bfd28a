// `llmd bench`.
#pragma once

namespace llmd::bench {

// Exit codes: 0 = the run went to its end and something was answered; 1 = nothing was, or the
// server could not be asked for its model; 2 = bad input; 130 (128 + the signal) = interrupted, the
// report of the run so far is given all the same.
int Main(int argc, const char* const* argv);

}  // namespace llmd::bench
