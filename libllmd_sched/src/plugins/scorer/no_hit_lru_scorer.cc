// Formula: docs/reference/scorers.md: spreads requests without any prefix hit over the endpoints
// least recently given one.
#include <algorithm>
#include <mutex>

#include "llmd/sched/hooks.h"
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class NoHitLruScorer final : public Scorer, public PreRequestHook, public EndpointObserver {
 public:
  NoHitLruScorer(size_t lru_size, DataKey match) : lru_size_(lru_size), match_(match) {}

  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    if (HasHit(request)) {
      std::fill(scores.begin(), scores.end(), 0.5);
      return;
    }
    if (candidates.size() == 1) {
      scores[0] = 1;
      return;
    }
    static thread_local std::vector<Rank> ranks;
    ranks.clear();
    {
      std::lock_guard lock(mutex_);
      for (size_t i = 0; i < candidates.size(); ++i) {
        const uint32_t slot = snapshot.set->slots[candidates[i]];
        ranks.push_back({slot < last_used_.size() ? last_used_[slot] : 0, slot, i});
      }
    }
    // Never used (0) first, by slot so that the order of candidates does not matter; then the
    // longest unused.
    std::sort(ranks.begin(), ranks.end());
    const double last = static_cast<double>(candidates.size() - 1);
    for (size_t r = 0; r < ranks.size(); ++r)
      scores[ranks[r].index] = std::max(0.0, 1 - static_cast<double>(r) / last);
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    if (HasHit(request)) return;
    std::lock_guard lock(mutex_);
    if (!outcome.prefill.empty()) Touch(snapshot.set->slots[outcome.prefill[0]]);
    if (!outcome.primary.empty()) Touch(snapshot.set->slots[outcome.primary[0]]);
  }

  void OnEndpointGone(const EndpointInfo&, uint32_t slot) override { OnSlotFree(slot); }
  void OnSlotFree(uint32_t slot) override {
    std::lock_guard lock(mutex_);
    if (slot >= last_used_.size() || last_used_[slot] == 0) return;
    last_used_[slot] = 0;
    --used_;
  }

 private:
  struct Rank {
    uint64_t last_used = 0;
    uint32_t slot = 0;
    size_t index = 0;
    auto operator<=>(const Rank&) const = default;
  };
  bool HasHit(const RequestContext& request) const {
    const Attribute* match = request.Get(match_);
    return match && std::any_of(match->per_endpoint.begin(), match->per_endpoint.end(),
                                [](double blocks) { return blocks > 0; });
  }
  void Touch(uint32_t slot) {
    if (slot >= last_used_.size()) last_used_.resize(slot + 1, 0);
    if (last_used_[slot] == 0 && ++used_ > lru_size_) {
      uint64_t* oldest = nullptr;
      for (uint64_t& when : last_used_) {
        if (when != 0 && (oldest == nullptr || when < *oldest)) oldest = &when;
      }
      *oldest = 0;
      --used_;
    }
    last_used_[slot] = ++clock_;
  }

  const size_t lru_size_;
  const DataKey match_;
  std::mutex mutex_;
  std::vector<uint64_t> last_used_;  // by slot, 0 = never; guarded by mutex_
  uint64_t clock_ = 0;               // guarded by mutex_
  size_t used_ = 0;                  // guarded by mutex_
};

}  // namespace

Status RegisterNoHitLruScorer(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "no-hit-lru-scorer",
                              .kind = "scorer",
                              .help = "Sends prompts that nobody has cached to the endpoint that "
                                      "got such a prompt longest ago.",
                              .params = {{"lruSize", "1024", "endpoints remembered"},
                                         {"prefixMatchInfoProducerName",
                                          "approx-prefix-cache-producer", "whose matches to read"}},
                              .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                                Params params(args.parameters);
                                const size_t size =
                                    static_cast<size_t>(params.Int("lruSize", 1024, 1, 1 << 20));
                                const DataKey match = args.env.Consume(
                                    "PrefixCacheMatchInfo",
                                    params.String("prefixMatchInfoProducerName", ""), true);
                                return Done(params, std::make_unique<NoHitLruScorer>(size, match));
                              }});
}

}  // namespace llmd::sched
