#include "llmd/sched/plugin_library.h"

llmd::Status SomethingTheProgramDoesNotHave(llmd::sched::PluginRegistry& registry);

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  return SomethingTheProgramDoesNotHave(registry);
}
