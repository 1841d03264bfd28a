// One good plugin and one whose type is taken: neither may stay.
#include "llmd/sched/plugin_library.h"

namespace {
llmd::StatusOr<std::unique_ptr<llmd::sched::Plugin>> None(llmd::sched::PluginArgs&) {
  return llmd::Unimplemented("never built");
}
}  // namespace

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  for (const char* type : {"a-new-scorer", "queue-scorer"}) {
    LLMD_RETURN_IF_ERROR(llmd::sched::AddPlugin(
        registry, {.type = type, .kind = "scorer", .help = "None.", .make = None}));
  }
  return llmd::OkStatus();
}
