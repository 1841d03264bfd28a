// Data parallel ranks behind one port: the request goes to the primary port, a header says which
// rank is meant (docs/reference/profile-handlers.md).
#include "llmd/sched/hooks.h"
#include "llmd/sched/profile_handler.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class DataParallelProfileHandler final : public ProfileHandler, public PreRequestHook {
 public:
  explicit DataParallelProfileHandler(uint16_t port) : port_(port) {}
  void Schedule(RequestContext&, ProfileRunner& runner, ScheduleOutcome& outcome) override {
    outcome.primary_profile = 0;
    outcome.primary = runner.Run(0);
    outcome.primary_port = port_;
    if (outcome.primary.empty()) outcome.error = "no endpoints available for the given request";
  }
  void PreRequest(RequestContext&, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList& set_headers) override {
    set_headers.emplace_back("x-data-parallel-host-port",
                             snapshot.set->host_ports[outcome.primary[0]]);
  }

 private:
  const uint16_t port_;
};

}  // namespace

Status RegisterDataParallelProfileHandler(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "data-parallel-profile-handler",
       .kind = "profile handler",
       .stability = Stability::kDeprecated,
       .help = "Runs the first profile; sends the request to the primary port and names the rank's "
               "own in x-data-parallel-host-port.",
       .params = {{"primaryPort", "8000", "port of the sidecar that knows the ranks"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const auto port = static_cast<uint16_t>(params.Int("primaryPort", 8000, 1, 65535));
         return Done(params, std::make_unique<DataParallelProfileHandler>(port));
       }});
}

}  // namespace llmd::sched
