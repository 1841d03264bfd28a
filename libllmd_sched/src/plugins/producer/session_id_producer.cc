#include <cctype>

#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/session.h"

namespace llmd::sched {
namespace {

class SessionIdProducer final : public Producer {
 public:
  SessionIdProducer(SessionSource source, DataKey key) : source_(std::move(source)), key_(key) {}
  Status Produce(RequestContext& request, const Snapshot&) override {
    const std::string_view id = source_.Read(request);
    if (!id.empty()) request.Put(key_).text.assign(id);
    return OkStatus();
  }

 private:
  const SessionSource source_;
  const DataKey key_;
};

}  // namespace

Status RegisterSessionIdProducer(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "session-id-producer",
                 .kind = "producer",
                 .help = "The session's id from a header or a cookie.",
                 .params = {{"headerName", "x-session-id", "header; excludes cookieName"},
                            {"cookieName", "", "cookie; excludes headerName"}},
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   SessionSource source;
                   source.cookie = params.String("cookieName", "");
                   source.header = Lower(
                       params.String("headerName", source.cookie.empty() ? "x-session-id" : ""));
                   if (!source.cookie.empty() && !source.header.empty()) {
                     params.Fail("cookieName", "expected either headerName or cookieName");
                   }
                   const DataKey key = args.env.Produce("SessionID");
                   return Done(params, std::make_unique<SessionIdProducer>(std::move(source), key));
                 }});
}

}  // namespace llmd::sched
