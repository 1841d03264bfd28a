// The older handler of prefill and decode, with data parallel ranks behind one port where
// primaryPort says so (docs/reference/profile-handlers.md).
#include "llmd/sched/decider.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/profile_handler.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/profile_handler/stage_headers.h"

namespace llmd::sched {
namespace {

struct Settings {
  std::string decode = "decode", prefill = "prefill";
  Decider* decider = nullptr;  // null = never
  uint16_t primary_port = 0;   // 0 = no ranks
};

class PdProfileHandler final : public ProfileHandler, public PreRequestHook {
 public:
  explicit PdProfileHandler(Settings settings) : s_(std::move(settings)) {}

  std::vector<std::string> Profiles() const override { return {s_.decode, s_.prefill}; }

  void Schedule(RequestContext& request, ProfileRunner& runner, ScheduleOutcome& outcome) override {
    outcome.primary_profile = runner.Find(s_.decode);
    outcome.primary = runner.Run(outcome.primary_profile);
    outcome.primary_port = s_.primary_port;
    if (outcome.primary.empty()) {
      outcome.error = "failed to find available decode workers";
      return;
    }
    const auto decode = static_cast<int>(outcome.primary[0]);
    if (!s_.decider || !s_.decider->Disaggregate(request, runner.snapshot(), decode)) return;
    outcome.prefill_profile = runner.Find(s_.prefill);
    outcome.prefill = runner.Run(outcome.prefill_profile);
    // A dual-role endpoint that was picked for both needs no peer.
    if (!outcome.prefill.empty() && outcome.prefill[0] == outcome.primary[0])
      outcome.prefill.clear();
    if (!outcome.prefill.empty()) outcome.decision_type = "prefill-decode";
  }

  void PreRequest(RequestContext&, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList& set_headers) override {
    SetPrefiller(snapshot, outcome, set_headers);
    if (s_.primary_port != 0)
      SetOnce(set_headers, "x-data-parallel-host-port",
              snapshot.set->host_ports[outcome.primary[0]]);
  }

 private:
  const Settings s_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.decode = params.String("decodeProfile", "decode");
  s.prefill = params.String("prefillProfile", "prefill");
  s.primary_port = static_cast<uint16_t>(params.Int("primaryPort", 0, 0, 65535));
  const std::string decider = params.String("deciderPluginName", "");
  if (decider.empty()) {
    args.env.Warn("without deciderPluginName nothing is ever prefilled elsewhere");
    return Done(params, std::make_unique<PdProfileHandler>(std::move(s)));
  }
  const StatusOr<Plugin*> plugin = args.env.Dependency(decider);
  s.decider = plugin.ok() ? dynamic_cast<Decider*>(*plugin) : nullptr;
  if (s.decider == nullptr) {
    params.Fail("deciderPluginName",
                plugin.ok() ? "plugin '" + decider + "' is no decider" : plugin.status().message());
  }
  return Done(params, std::make_unique<PdProfileHandler>(std::move(s)));
}

}  // namespace

Status RegisterPdProfileHandler(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "pd-profile-handler",
       .kind = "profile handler",
       .stability = Stability::kDeprecated,
       .help = "Runs decode, and prefill where its decider says so; use disagg-profile-handler.",
       .params = {{"decodeProfile", "decode", "profile name"},
                  {"prefillProfile", "prefill", "profile name"},
                  {"deciderPluginName", "", "decider plugin; none = never"},
                  {"primaryPort", "0",
                   "data parallel: port of the sidecar that knows the ranks; 0 = no ranks"}},
       .make = Make});
}

}  // namespace llmd::sched
