// Built, as it believes, for the ABI before this one.
#include "llmd/sched/plugin_library.h"

extern "C" const char* llmd_plugin_init(uint64_t abi_version,
                                        llmd::sched::PluginRegistry* registry) {
  return llmd::sched::internal::InitPluginLibrary(
      abi_version - (uint64_t{1} << 32), registry,
      [](llmd::sched::PluginRegistry&) { return llmd::Internal("must not be asked"); });
}
