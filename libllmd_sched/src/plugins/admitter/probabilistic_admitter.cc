// Formula (docs/reference/admitters.md): sheddable requests are refused with
// p = min(sat^power · k, 1), sat = mean over endpoints of max(queue/Tq, kv/Tkv).
#include <algorithm>
#include <cmath>

#include "llmd/sched/admitter.h"
#include "math/repeatable.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

struct Settings {
  double queue = 5, kv = 0.8, power = 5, k = 300;
};

class ProbabilisticAdmitter final : public Admitter {
 public:
  explicit ProbabilisticAdmitter(Settings settings) : s_(settings) {}
  AdmissionDenied Admit(RequestContext& request, const Snapshot& snapshot) override {
    if (request.priority >= 0) return {};
    const double p = std::min(1.0, RepeatablePow(Saturation(snapshot), s_.power) * s_.k);
    if (p <= 0 || RandomUnit(request.random) >= p) return {};
    return {429, "request cannot be admitted: the pool is busy and the request is sheddable",
            "rejected-saturated"};
  }

 private:
  // An endpoint that is not known counts as full; so does an empty pool.
  double Saturation(const Snapshot& snapshot) const {
    if (snapshot.size() == 0) return 1;
    double sum = 0;
    for (size_t i = 0; i < snapshot.size(); ++i) {
      const double one = std::max(snapshot.waiting[i] / s_.queue, snapshot.kv_usage[i] / s_.kv);
      sum += snapshot.metrics[i]->ever && std::isfinite(one) ? one : 1;
    }
    return sum / static_cast<double>(snapshot.size());
  }
  const Settings s_;
};

}  // namespace

Status RegisterProbabilisticAdmitter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "probabilistic-admitter",
       .kind = "admitter",
       .help = "Refuses requests of negative priority (429) the more likely the fuller the pool.",
       .params = {{"queueDepthThreshold", "5", "waiting requests that count as full"},
                  {"kvCacheUtilThreshold", "0.8", "KV use that counts as full"},
                  {"power", "5", "exponent of the saturation"},
                  {"k", "300", "factor of the power"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         Settings s;
         s.queue = params.Double("queueDepthThreshold", s.queue, 1e-6, 1e9);
         s.kv = params.Double("kvCacheUtilThreshold", s.kv, 1e-6, 1);
         s.power = params.Double("power", s.power, 0, 1000);
         s.k = params.Double("k", s.k, 0, 1e12);
         return Done(params, std::make_unique<ProbabilisticAdmitter>(s));
       }});
}

}  // namespace llmd::sched
