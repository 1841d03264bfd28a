// Formula: docs/reference/filters.md, utilization-filter.
#include <algorithm>
#include <cmath>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

enum class Metric { kActive, kRunning, kWaiting, kKvUsage };
struct Condition {
  Metric metric = Metric::kActive;
  double max = 0;
};

class UtilizationFilter final : public Filter {
 public:
  UtilizationFilter(std::vector<Condition> conditions, bool fallback, DataKey load)
      : conditions_(std::move(conditions)), fallback_(fallback), load_(load) {}

  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    const auto over = [&](uint32_t c) {
      return std::any_of(conditions_.begin(), conditions_.end(), [&](const Condition& condition) {
        return Value(request, snapshot, condition.metric, c) > condition.max;
      });
    };
    if (fallback_ && std::all_of(candidates.begin(), candidates.end(), over)) return;
    std::erase_if(candidates, over);
  }
  bool drops_saturated() const override { return true; }

 private:
  // What is not known counts as 0.
  double Value(const RequestContext& request, const Snapshot& snapshot, Metric metric,
               uint32_t c) const {
    double v = 0;
    if (metric == Metric::kActive) {
      const Attribute* load = request.Get(load_);
      v = load ? load->per_endpoint[c] : 0;
    } else {
      v = metric == Metric::kRunning   ? snapshot.running[c]
          : metric == Metric::kWaiting ? snapshot.waiting[c]
                                       : snapshot.kv_usage[c];
    }
    return std::isnan(v) ? 0 : v;
  }
  const std::vector<Condition> conditions_;
  const bool fallback_;
  const DataKey load_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  std::vector<Condition> conditions;
  bool active = false;
  for (const config::Node& item : params.node("conditions").Items()) {
    Params one(item);
    const std::string metric = one.Choice(
        "metric", "",
        {"active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"});
    if (!one.Has("maxValue")) one.Fail("maxValue", "expected a number");
    const double max = one.Double("maxValue", 0, 0, 1e15);
    conditions.push_back({metric == "active-requests"    ? Metric::kActive
                          : metric == "running-requests" ? Metric::kRunning
                          : metric == "waiting-queue"    ? Metric::kWaiting
                                                         : Metric::kKvUsage,
                          max});
    active = active || metric == "active-requests";
    if (Status status = one.Finish(); !status.ok()) params.Fail(status);
  }
  if (conditions.empty()) params.Fail("conditions", "expected at least one condition");
  const bool fallback = params.Bool("fallbackOnEmpty", false);
  const std::string producer = params.String("inFlightLoadProducerName", "");
  const DataKey load = active ? args.env.Consume("InFlightLoad", producer, true) : kNoKey;
  return Done(params, std::make_unique<UtilizationFilter>(std::move(conditions), fallback, load));
}

}  // namespace

Status RegisterUtilizationFilter(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "utilization-filter",
                    .kind = "filter",
                    .stability = Stability::kAlpha,
                    .help = "Keeps endpoints whose every listed metric is at most its maximum.",
                    .params = {{"conditions", "",
                                "{metric, maxValue}; metric is active-requests, running-requests, "
                                "waiting-queue or kv-cache-utilization"},
                               {"fallbackOnEmpty", "false", "keep all when none would remain"},
                               {"inFlightLoadProducerName", "inflight-load-producer",
                                "whose active-requests to read"}},
                    .make = Make});
}

}  // namespace llmd::sched
