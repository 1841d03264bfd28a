// The request names the profile (docs/reference/profile-handlers.md); used by coordinators.
#include "llmd/sched/profile_handler.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/session.h"

namespace llmd::sched {
namespace {

class HeaderProfileHandler final : public ProfileHandler {
 public:
  HeaderProfileHandler(std::string header, std::string fallback)
      : header_(std::move(header)), fallback_(std::move(fallback)) {}
  void Schedule(RequestContext& request, ProfileRunner& runner, ScheduleOutcome& outcome) override {
    const std::string_view named = request.Header(header_);
    const int profile = runner.count() == 1 ? 0 : runner.Find(named.empty() ? fallback_ : named);
    if (profile < 0) {
      outcome.error = "the request names a scheduling profile that does not exist";
      outcome.error_status = 429;
      return;
    }
    outcome.primary_profile = profile;
    outcome.primary = runner.Run(profile);
    if (outcome.primary.empty()) outcome.error = "no endpoints available for the given request";
  }

 private:
  const std::string header_, fallback_;
};

}  // namespace

Status RegisterHeaderProfileHandler(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "header-profile-handler",
                 .kind = "profile handler",
                 .stability = Stability::kAlpha,
                 .help = "Runs the profile that a request header names (429 for an unknown one); a "
                         "single profile is always used.",
                 .params = {{"headerName", "EPP-Profile", "request header"},
                            {"defaultProfile", "decode", "without the header"}},
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   std::string header = Lower(params.String("headerName", "EPP-Profile"));
                   std::string fallback = params.String("defaultProfile", "decode");
                   return Done(params, std::make_unique<HeaderProfileHandler>(std::move(header),
                                                                              std::move(fallback)));
                 }});
}

}  // namespace llmd::sched
