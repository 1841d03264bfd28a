#include "llmd/sched/parser.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class PassthroughParser final : public Parser {
 public:
  std::vector<std::string_view> PathSuffixes() const override { return {}; }
  Status Parse(RequestContext& request) override {
    request.api = Api::kNone;
    return OkStatus();
  }
  void ReadUsage(std::string_view, Usage*) const override {}
};

}  // namespace

Status RegisterPassthroughParser(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "passthrough-parser",
                              .kind = "parser",
                              .help = "The fallback: any body, unread; the model is unknown.",
                              .make = Simple<PassthroughParser>()});
}

}  // namespace llmd::sched
