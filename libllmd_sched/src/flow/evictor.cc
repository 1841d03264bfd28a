#include "flow/evictor.h"

#include <algorithm>
#include <cmath>

namespace llmd::sched {

Evictor::Evictor(const EvictionFilter& filter, const EvictionOrder& order, Duration reaction,
                 FlowMetrics& metrics)
    : filter_(filter), reaction_(reaction), metrics_(metrics), victims_(ByOrder{&order}) {}

void Evictor::Track(FlowItem& item) {
  if (item.in_victims == kNotInHeap && filter_.Revocable(item.in_flight)) victims_.Push(&item);
}

void Evictor::Ended(FlowItem& item, TimePoint now) {
  if (item.in_victims != kNotInHeap) victims_.Remove(&item);
  for (Debit& debit : debits_) {
    if (debit.ticket != item.ticket() || debit.retired != TimePoint::max()) continue;
    debit.retired = now;
    metrics_.revocations_confirmed.Add();
    metrics_.confirmation.Observe(std::chrono::duration<double>(now - debit.issued).count());
  }
}

void Evictor::Settle(TimePoint now) {
  for (Debit& debit : debits_) {
    if (debit.retired != TimePoint::max() || now - debit.issued < kConfirmationTimeout) continue;
    debit.retired = now;
    metrics_.revocations_timed_out.Add();
  }
  std::erase_if(debits_, [&](const Debit& d) {
    return d.retired != TimePoint::max() && now - d.retired >= reaction_;
  });
  double pending = 0;
  for (const Debit& debit : debits_) pending += debit.credit;
  metrics_.pending_reclaim.Set(pending);
}

const Demand* Evictor::Served(double saturation, std::span<const Demand> demands) const {
  const int victim = victims_.top()->in_flight.priority;
  for (const Demand& demand : demands) {
    if (demand.priority <= victim) return nullptr;
    // A ceiling of 0 says that the band must not run; taking others back would not help it.
    if (demand.ceiling > 0 && saturation >= demand.ceiling) return &demand;
  }
  return nullptr;
}

std::span<FlowItem* const> Evictor::Choose(double saturation, std::span<const Demand> demands,
                                           size_t in_flight, TimePoint now) {
  chosen_.clear();
  Settle(now);
  if (!debits_.empty() || victims_.empty() || in_flight == 0) return {};
  const Demand* const demand = Served(saturation, demands);
  if (demand == nullptr) return {};
  const double deficit = saturation - demand->ceiling;
  const double credit = saturation / static_cast<double>(in_flight);
  metrics_.reclaim_target.Set(deficit);
  // At the ceiling itself nothing is missing, yet the gate is closed: one must go.
  const double wanted = std::max(1.0, std::ceil(deficit / credit));
  const auto count = static_cast<size_t>(std::min(wanted, static_cast<double>(kMaxVictims)));
  while (chosen_.size() < count && !victims_.empty() &&
         victims_.top()->in_flight.priority < demand->priority) {
    FlowItem* const victim = victims_.top();
    victims_.Remove(victim);
    debits_.push_back({.ticket = victim->ticket(), .credit = credit, .issued = now});
    metrics_.RevocationsIssued(demand->priority).Add();
    chosen_.push_back(victim);
  }
  metrics_.pending_reclaim.Set(credit * static_cast<double>(debits_.size()));
  return chosen_;
}

}  // namespace llmd::sched
