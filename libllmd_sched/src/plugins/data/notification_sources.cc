// Sources that bring no page but changes: of the pool's endpoints, of Kubernetes objects.
#include "llmd/sched/source.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class EndpointNotificationSource final : public NotificationSource {};

}  // namespace

Status RegisterNotificationSources(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(AddPlugin(
      registry, {.type = "endpoint-notification-source",
                 .kind = "source",
                 .help = "Endpoints that join and leave the pool. Its extractors are plugins that "
                         "follow them; those are told with or without this source.",
                 .make = Simple<EndpointNotificationSource>()}));
  return AddPlugin(
      registry,
      {.type = "k8s-notification-source",
       .kind = "source",
       .help = "Changes of one kind of Kubernetes objects. Refused: this build has no Kubernetes "
               "client.",
       .params = {{"group", "", "API group; empty = core"},
                  {"version", "", "API version"},
                  {"kind", "", "kind of object"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         for (const char* key : {"group", "version", "kind"}) params.String(key, "");
         LLMD_RETURN_IF_ERROR(params.Finish());
         return Unimplemented("plugin '" + args.name +
                              "': k8s-notification-source needs a Kubernetes watch, which this "
                              "build does not have");
       }});
}

}  // namespace llmd::sched
