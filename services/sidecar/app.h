// llmd-sidecar: the P/D routing sidecar. Wiring only.
#pragma once

namespace llmd::sidecar {

// The process's exit code.
int RunSidecar(int argc, const char* const* argv);

}  // namespace llmd::sidecar
