// llmd-engine: one model behind vLLM's HTTP API.
#pragma once

namespace llmd::services {

// Runs until SIGTERM or SIGINT; the process's exit code.
int RunEngine(int argc, const char* const* argv);

}  // namespace llmd::services
