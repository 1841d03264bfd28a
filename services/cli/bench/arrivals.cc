#include "cli/bench/arrivals.h"

#include <cmath>

namespace llmd::bench {

Arrivals::Arrivals(const Options& options, const Trace* trace, uint64_t share, uint64_t of)
    : options_(options),
      trace_(trace),
      share_(share),
      of_(of),
      random_(options.seed, Random::kArrivals, 0) {}

std::optional<Arrival> Arrivals::Next() {
  while (true) {
    const std::optional<Arrival> arrival = NextOfAll();
    if (!arrival || arrival->index % of_ == share_) return arrival;
  }
}

std::optional<Arrival> Arrivals::NextOfAll() {
  return options_.load == Options::Load::kTrace ? NextOfTrace() : NextOfStages();
}

std::optional<Arrival> Arrivals::NextOfTrace() {
  const Stage limits = options_.stages.empty() ? Stage{} : options_.stages[0];
  if (index_ >= trace_->entries().size() || (limits.requests != 0 && index_ >= limits.requests)) {
    return std::nullopt;
  }
  const double at = static_cast<double>(trace_->entries()[index_].at_ns) / options_.speed;
  const auto at_ns = static_cast<int64_t>(std::llround(at));
  if (limits.duration.count() != 0 && at_ns >= limits.duration.count()) return std::nullopt;
  return Arrival{.at_ns = at_ns, .index = index_++};
}

std::optional<Arrival> Arrivals::NextOfStages() {
  for (; stage_ < options_.stages.size(); ++stage_) {
    const Stage& stage = options_.stages[stage_];
    // Constant arrivals are multiples, not sums, so that errors do not add up.
    if (options_.load == Options::Load::kPoisson) {
      at_s_ += random_.Exponential() / stage.rate;
    } else {
      at_s_ = static_cast<double>(in_stage_) / stage.rate;
    }
    const auto at = static_cast<int64_t>(std::llround(at_s_ * 1e9));
    const bool over = (stage.requests != 0 && in_stage_ >= stage.requests) ||
                      (stage.duration.count() != 0 && at >= stage.duration.count());
    if (!over) {
      ++in_stage_;
      return Arrival{
          .at_ns = stage_start_ + at, .index = index_++, .stage = static_cast<uint32_t>(stage_)};
    }
    const int64_t length = stage.duration.count() != 0 ? std::min(at, stage.duration.count()) : at;
    stage_start_ += length + options_.stage_pause.count();
    in_stage_ = 0;
    at_s_ = 0;
  }
  return std::nullopt;
}

}  // namespace llmd::bench
