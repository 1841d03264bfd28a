#include <algorithm>
#include <cmath>

#include "llmd/sched/picker.h"
#include "math/repeatable.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/picker/ranked.h"

namespace llmd::sched {
namespace {

class RandomPicker final : public Picker {
 public:
  explicit RandomPicker(size_t count) : count_(count) {}
  int Pick(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
           std::span<const double>, std::vector<uint32_t>& picked) override {
    PickRanked(candidates, count_, picked,
               [&](size_t) { return RankKey{RandomUnit(request.random), 0}; });
    return 0;
  }

 private:
  const size_t count_;
};

// A-Res sampling (Efraimidis and Spirakis 2006): greatest U^(1/weight) first, here as
// log(U)/weight.
class WeightedRandomPicker final : public Picker {
 public:
  explicit WeightedRandomPicker(size_t count) : count_(count) {}
  int Pick(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
           std::span<const double> totals, std::vector<uint32_t>& picked) override {
    const bool uniform = std::none_of(totals.begin(), totals.end(), [](double t) { return t > 0; });
    PickRanked(candidates, count_, picked, [&](size_t i) {
      const double u = RepeatableLog(RandomUnit(request.random));
      if (uniform) return RankKey{u, 0};
      // A zero weight comes only after every other.
      return totals[i] > 0 ? RankKey{u / totals[i], 0} : RankKey{-INFINITY, u};
    });
    return 0;
  }

 private:
  const size_t count_;
};

template <typename T>
StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  const size_t count = MaxEndpoints(params);
  return Done(params, std::make_unique<T>(count));
}

}  // namespace

Status RegisterRandomPickers(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(
      AddPlugin(registry, {.type = "random-picker",
                           .kind = "picker",
                           .help = "Uniform over the candidates, whatever their scores.",
                           .params = {kMaxEndpointsHelp},
                           .make = Make<RandomPicker>}));
  return AddPlugin(registry, {.type = "weighted-random-picker",
                              .kind = "picker",
                              .help = "Random with probability in proportion to the total.",
                              .params = {kMaxEndpointsHelp},
                              .make = Make<WeightedRandomPicker>});
}

}  // namespace llmd::sched
