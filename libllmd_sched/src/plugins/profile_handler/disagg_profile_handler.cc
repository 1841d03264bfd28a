// Prefill, decode and encode on different endpoints (docs/reference/profile-handlers.md).
#include <algorithm>

#include "llmd/metrics.h"
#include "llmd/sched/decider.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/profile_handler.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/profile_handler/stage_headers.h"

namespace llmd::sched {
namespace {

struct Settings {
  bool prefill_first = false;
  std::string decode = "decode", prefill = "prefill", encode = "encode";
  Decider* prefill_decider = nullptr;  // null = never
  Decider* encode_decider = nullptr;
};

class DisaggProfileHandler final : public ProfileHandler, public PreRequestHook {
 public:
  explicit DisaggProfileHandler(Settings settings) : s_(std::move(settings)) {}

  std::vector<std::string> Profiles() const override {
    std::vector<std::string> out = {s_.decode};
    if (s_.prefill_first || s_.prefill_decider) out.push_back(s_.prefill);
    if (s_.encode_decider) out.push_back(s_.encode);
    return out;
  }

  void Schedule(RequestContext& request, ProfileRunner& runner, ScheduleOutcome& outcome) override {
    if (!s_.prefill_first && !s_.prefill_decider && request.log) {
      request.log->Named("PD").Log(
          LogLevel::kDebug,
          "Disagregated prefill/decode disabled - scheduling to decode worker only",
          {{"request", request.Describe(false)}});
    }
    if (s_.prefill_first) RunPrefill(runner, outcome);
    if (!outcome.prefill.empty()) request.peer = static_cast<int>(outcome.prefill[0]);
    if (s_.prefill_first) RunEncode(request, runner, outcome, -1);
    outcome.primary_profile = runner.Find(s_.decode);
    outcome.primary = runner.Run(outcome.primary_profile);
    if (outcome.primary.empty()) {
      outcome.error = "failed to find available decode workers";
      return;
    }
    const int decode = static_cast<int>(outcome.primary[0]);
    request.peer = decode;
    if (!s_.prefill_first) {
      RunEncode(request, runner, outcome, decode);
      if (s_.prefill_decider &&
          s_.prefill_decider->Disaggregate(request, runner.snapshot(), decode)) {
        RunPrefill(runner, outcome);
      }
    }
    // A dual-role endpoint that was picked for both needs no peer.
    if (!outcome.prefill.empty() && outcome.prefill[0] == outcome.primary[0])
      outcome.prefill.clear();
    outcome.decision_type = Type(outcome);
  }

  void PreRequest(RequestContext&, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList& set_headers) override {
    SetPrefiller(snapshot, outcome, set_headers);
    SetEncoders(snapshot, outcome, set_headers);
  }

 private:
  void RunPrefill(ProfileRunner& runner, ScheduleOutcome& outcome) const {
    outcome.prefill_profile = runner.Find(s_.prefill);
    outcome.prefill = runner.Run(outcome.prefill_profile);
  }
  void RunEncode(RequestContext& request, ProfileRunner& runner, ScheduleOutcome& outcome,
                 int decode) const {
    if (!s_.encode_decider || !s_.encode_decider->Disaggregate(request, runner.snapshot(), decode))
      return;
    outcome.encode_profile = runner.Find(s_.encode);
    outcome.encode = runner.Run(outcome.encode_profile);
  }
  static std::string_view Type(const ScheduleOutcome& outcome) {
    if (outcome.encode.empty()) return outcome.prefill.empty() ? "decode-only" : "prefill-decode";
    return outcome.prefill.empty() ? "encode-decode" : "encode-prefill-decode";
  }
  const Settings s_;
};

Decider* FindDecider(PluginArgs& args, Params& params, const config::Node& node) {
  if (node.IsNull()) return nullptr;
  const StatusOr<std::string> name = node.String();
  const StatusOr<Plugin*> plugin =
      name.ok() ? args.env.Dependency(*name) : StatusOr<Plugin*>(name.status());
  Decider* decider = plugin.ok() ? dynamic_cast<Decider*>(*plugin) : nullptr;
  if (!plugin.ok()) {
    params.Fail(name.ok() ? node.Error(plugin.status().message()) : name.status());
  } else if (decider == nullptr) {
    params.Fail(node.Error("plugin '" + *name + "' is no decider"));
  }
  return decider;
}

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.prefill_first = params.Choice("stageOrder", "decode-first",
                                  {"decode-first", "prefill-first"}) == "prefill-first";
  // The flat names are the legacy spelling.
  Params profiles(params.node("profiles"));
  s.decode = profiles.String("decode", params.String("decodeProfile", "decode"));
  s.prefill = profiles.String("prefill", params.String("prefillProfile", "prefill"));
  s.encode = profiles.String("encode", params.String("encodeProfile", "encode"));
  const config::Node deciders = params.node("deciders");
  const config::Node flat = params.node("deciderPluginName");
  const config::Node prefill = deciders.Get("prefill");
  s.prefill_decider = FindDecider(args, params, prefill.IsNull() ? flat : prefill);
  s.encode_decider = FindDecider(args, params, deciders.Get("encode"));
  if (s.prefill_first && s.prefill_decider) {
    params.Fail("deciders",
                "stageOrder prefill-first always prefills: it takes no prefill decider");
  }
  return Done(params, std::make_unique<DisaggProfileHandler>(std::move(s)));
}

}  // namespace

Status RegisterDisaggProfileHandler(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "disagg-profile-handler",
                 .kind = "profile handler",
                 .help = "Runs decode, and prefill and encode profiles where their deciders say "
                         "so; sets x-prefiller-host-port.",
                 .params = {{"stageOrder", "decode-first", "or prefill-first"},
                            {"profiles.decode", "decode", "profile name; legacy decodeProfile"},
                            {"profiles.prefill", "prefill", "profile name; legacy prefillProfile"},
                            {"profiles.encode", "encode", "profile name; legacy encodeProfile"},
                            {"deciders.prefill", "",
                             "decider plugin; none = never; legacy deciderPluginName"},
                            {"deciders.encode", "", "decider plugin; none = never"}},
                 .make = Make});
}

}  // namespace llmd::sched
