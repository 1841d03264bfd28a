// llmd-epp: the endpoint picker behind Envoy. Wiring only.
#pragma once

namespace llmd::epp {

// The process's exit code.
int RunEpp(int argc, const char* const* argv);

}  // namespace llmd::epp
