#include "llmd/sched/profile_handler.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class SingleProfileHandler final : public ProfileHandler {
 public:
  void Schedule(RequestContext& request, ProfileRunner& runner, ScheduleOutcome& outcome) override {
    if (request.log) {
      request.log->Named("PD").Log(
          LogLevel::kDebug,
          "Disagregated prefill/decode disabled - scheduling to decode worker only",
          {{"request", request.Describe(false)}});
    }
    outcome.primary_profile = 0;
    outcome.primary = runner.Run(0);
    if (outcome.primary.empty()) outcome.error = "no endpoints available for the given request";
  }
};

}  // namespace

Status RegisterSingleProfileHandler(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "single-profile-handler",
                              .kind = "profile handler",
                              .help = "Runs the only profile.",
                              .make = Simple<SingleProfileHandler>()});
}

}  // namespace llmd::sched
