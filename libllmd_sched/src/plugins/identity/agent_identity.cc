// The fairness id of agents that name only their session (docs/reference/request-headers.md).
#include "llmd/sched/hooks.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/session.h"

namespace llmd::sched {
namespace {

class AgentIdentity final : public RequestHeaderHook {
 public:
  explicit AgentIdentity(std::vector<std::string> headers) : headers_(std::move(headers)) {}
  void OnRequestHeaders(RequestContext& request) override {
    if (!request.fairness_id.empty()) return;
    for (const std::string& header : headers_) {
      const std::string_view id = request.Header(header);
      if (id.empty()) continue;
      request.fairness_id.assign(id);
      return;
    }
  }

 private:
  const std::vector<std::string> headers_;  // in lower case, first wins
};

}  // namespace

Status RegisterAgentIdentity(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "agent-identity",
       .kind = "request header hook",
       .stability = Stability::kAlpha,
       .help = "Makes an agent's session header its fairness id, unless the request names one: "
               "x-claude-code-session-id, x-session-affinity, session-id, session_id.",
       .params = {{"additionalSessionHeaders", "[]", "looked at after those"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         std::vector<std::string> headers = {"x-claude-code-session-id", "x-session-affinity",
                                             "session-id", "session_id"};
         for (std::string& extra : params.Strings("additionalSessionHeaders"))
           headers.push_back(Lower(std::move(extra)));
         return Done(params, std::make_unique<AgentIdentity>(std::move(headers)));
       }});
}

}  // namespace llmd::sched
