// `llmd up`: a whole prefill/decode cluster on this machine, from one command.
#pragma once

namespace llmd::cli {

// argv[0] is "up". The process's exit code.
int RunUp(int argc, const char* const* argv);
// `llmd explain REQUEST_ID`: how a recent request was routed.
int RunExplain(int argc, const char* const* argv);
// `llmd down`: ends a cluster that runs in the background.
int RunDown(int argc, const char* const* argv);
// `llmd plugins`: the scheduling plugins of this build.
int RunPlugins(int argc, const char* const* argv);

}  // namespace llmd::cli
