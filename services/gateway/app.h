// llmd-gateway: an OpenAI-compatible front with the scheduler in process, or with a picker over
// ext_proc. Wiring only.
#pragma once

namespace llmd::gateway {

// The process's exit code.
int RunGateway(int argc, const char* const* argv);

}  // namespace llmd::gateway
