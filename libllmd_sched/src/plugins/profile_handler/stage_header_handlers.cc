// Older configurations name the plugins that set the stage headers; the handlers do it by
// themselves now, and these only see to it.
#include "llmd/sched/hooks.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/profile_handler/stage_headers.h"

namespace llmd::sched {
namespace {

class StageHeaders final : public PreRequestHook {
 public:
  explicit StageHeaders(bool encoders) : encoders_(encoders) {}
  void PreRequest(RequestContext&, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList& set_headers) override {
    SetPrefiller(snapshot, outcome, set_headers);
    if (encoders_) SetEncoders(snapshot, outcome, set_headers);
  }

 private:
  const bool encoders_;
};

PluginFactory Make(bool encoders) {
  return [encoders](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
    Params params(args.parameters);
    for (const char* key : {"prefillProfile", "encodeProfile"}) {
      if (key[0] == 'e' && !encoders) continue;
      if (!params.String(key, "").empty())
        args.env.Warn(std::string(key) + " has no effect: the handler says which stage is which");
    }
    return Done(params, std::make_unique<StageHeaders>(encoders));
  };
}

}  // namespace

Status RegisterStageHeaderHandlers(PluginRegistry& registry) {
  const ParamHelp prefill = {"prefillProfile", "", "has no effect: the handler knows"};
  const ParamHelp encode = {"encodeProfile", "", "has no effect: the handler knows"};
  LLMD_RETURN_IF_ERROR(AddPlugin(
      registry, {.type = "disagg-headers-handler",
                 .kind = "header handler",
                 .stability = Stability::kDeprecated,
                 .help = "Sets x-prefiller-host-port and x-encoder-hosts-ports, which the handlers "
                         "set by themselves.",
                 .params = {prefill, encode},
                 .make = Make(true)}));
  return AddPlugin(registry, {.type = "prefill-header-handler",
                              .kind = "header handler",
                              .stability = Stability::kDeprecated,
                              .help = "Sets x-prefiller-host-port, which the handlers set by "
                                      "themselves.",
                              .params = {prefill},
                              .make = Make(false)});
}

}  // namespace llmd::sched
