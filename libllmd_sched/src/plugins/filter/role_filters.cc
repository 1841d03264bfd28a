// Formula: docs/reference/filters.md, the role label of P/D and encode disaggregation.
#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class RoleFilter final : public Filter {
 public:
  explicit RoleFilter(uint8_t wanted) : wanted_(wanted) {}
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    std::erase_if(candidates, [&](uint32_t i) { return (snapshot.set->roles[i] & wanted_) == 0; });
  }

 private:
  const uint8_t wanted_;
};

Status Add(PluginRegistry& registry, std::string type, uint8_t wanted, std::string help) {
  return AddPlugin(registry,
                   {.type = std::move(type),
                    .kind = "filter",
                    .help = std::move(help),
                    .make = [wanted](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                      Params params(args.parameters);
                      return Done(params, std::make_unique<RoleFilter>(wanted));
                    }});
}

}  // namespace

Status RegisterRoleFilters(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(
      Add(registry, "decode-filter", kRoleDecode | kRoleUnlabelled,
          "Keeps endpoints whose llm-d.ai/role decodes, and those without the label."));
  LLMD_RETURN_IF_ERROR(Add(registry, "prefill-filter", kRolePrefill,
                           "Keeps endpoints whose llm-d.ai/role prefills; the label is required."));
  return Add(registry, "encode-filter", kRoleEncode,
             "Keeps endpoints whose llm-d.ai/role encodes; the label is required.");
}

}  // namespace llmd::sched
