#include <algorithm>
#include <cmath>

#include "llmd/sched/picker.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/picker/ranked.h"
#include "trace/schedule_log.h"

namespace llmd::sched {
namespace {

void LogSelection(const RequestContext& request, std::string_view what, size_t count) {
  if (!request.log) return;
  schedule_log::Line(request, std::string(what) + " from " + std::to_string(count) + " candidates");
}

class MaxScorePicker final : public Picker {
 public:
  explicit MaxScorePicker(size_t count) : count_(count) {}

  int Pick(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
           std::span<const double> totals, std::vector<uint32_t>& picked) override {
    if (candidates.empty()) return 0;
    LogSelection(request, "Selecting a pod with the max score", candidates.size());
    const double best = *std::max_element(totals.begin(), totals.end());
    const int tied = static_cast<int>(std::count(totals.begin(), totals.end(), best));
    if (tied > 1) LogSelection(request, "Selecting a random pod", static_cast<size_t>(tied));
    if (count_ == 1) {
      picked.push_back(NthBest(candidates, totals, best, RandomBelow(request.random, tied)));
    } else {
      PickRanked(candidates, count_, picked,
                 [&](size_t i) { return RankKey{totals[i], RandomUnit(request.random)}; });
    }
    return tied;
  }

 private:
  static uint32_t NthBest(std::span<const uint32_t> candidates, std::span<const double> totals,
                          double best, uint64_t n) {
    size_t i = 0;
    for (;; ++i) {
      if (totals[i] == best && n-- == 0) break;
    }
    return candidates[i];
  }
  const size_t count_;
};

}  // namespace

Status RegisterMaxScorePicker(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "max-score-picker",
                              .kind = "picker",
                              .help = "The best total first; ties are broken at random.",
                              .params = {kMaxEndpointsHelp},
                              .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                                Params params(args.parameters);
                                const size_t count = MaxEndpoints(params);
                                return Done(params, std::make_unique<MaxScorePicker>(count));
                              }});
}

}  // namespace llmd::sched
