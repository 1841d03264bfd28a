#include "llmd/sched/decider.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class AlwaysDisaggMultimodal final : public Decider {
 public:
  explicit AlwaysDisaggMultimodal(DataKey tokens) : tokens_(tokens) {}
  bool Disaggregate(RequestContext& request, const Snapshot&, int) override {
    const Attribute* prompt = request.Get(tokens_);
    return prompt != nullptr && !prompt->media.empty();
  }

 private:
  const DataKey tokens_;
};

}  // namespace

Status RegisterMultimodalDecider(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "always-disagg-multimodal-decider",
                    .kind = "decider",
                    .help = "Every request with a picture, a film or a sound is encoded elsewhere.",
                    .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                      Params params(args.parameters);
                      const DataKey tokens = args.env.Consume("TokenizedPrompt", "", true);
                      return Done(params, std::make_unique<AlwaysDisaggMultimodal>(tokens));
                    }});
}

}  // namespace llmd::sched
