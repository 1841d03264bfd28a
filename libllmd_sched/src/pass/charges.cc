#include "llmd/sched/charges.h"

#include <utility>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/profile_handler.h"
#include "llmd/sched/request_context.h"

namespace llmd::sched {

double RequestCharges::Entry::tokens() const {
  return InFlightAccount::Tokens(units);
}

void RequestCharges::Open(std::shared_ptr<const EndpointLife> life, bool prefill, double tpot_ms) {
  InFlightAccount& account = life->account();
  if (tpot_ms >= 0) account.Promise(tpot_ms);
  const uint64_t mark = account.Open();
  charges_.push_back(
      {.life = std::move(life), .mark = mark, .tpot_ms = tpot_ms, .prefill = prefill});
}

void RequestCharges::FirstChunk() {
  for (Entry& entry : entries_) {
    if (entry.until == Until::kFirstChunk) Close(entry);
  }
  for (Charge& charge : charges_) {
    if (std::exchange(charge.waits, false)) charge.life->account().Answered(charge.mark);
    if (charge.prefill) Close(charge);
  }
}

void RequestCharges::End() {
  for (Entry& entry : entries_) Close(entry);
  for (Charge& charge : charges_) {
    if (std::exchange(charge.waits, false)) charge.life->account().Answered(charge.mark);
    Close(charge);
  }
}

void RequestCharges::Reset() {
  End();
  charges_.clear();
  entries_.clear();
}

size_t RequestCharges::Find(bool prefill) const {
  for (size_t i = 0; i < charges_.size(); ++i) {
    if (charges_[i].prefill == prefill) return i;
  }
  return kNoCharge;
}

void RequestCharges::Book(std::shared_ptr<const LedgerColumn> column, size_t charge, double tokens,
                          Until until, uint64_t mark) {
  if (charge >= charges_.size() || !charges_[charge].open) return;
  const int64_t units = InFlightAccount::Units(tokens);
  charges_[charge].life->account().Add(column->number(), units);
  entries_.push_back({std::move(column), charge, units, mark, until});
}

void RequestCharges::Close(Charge& charge) {
  if (!std::exchange(charge.open, false)) return;
  InFlightAccount& account = charge.life->account();
  account.Close();
  if (charge.tpot_ms >= 0) account.Release(charge.tpot_ms);
}

void RequestCharges::Close(Entry& entry) {
  if (!std::exchange(entry.open, false)) return;
  charges_[entry.charge].life->account().Add(entry.column->number(), -entry.units);
}

void OpenCharges(RequestContext& request, const Snapshot& snapshot,
                 const ScheduleOutcome& outcome) {
  const std::vector<std::shared_ptr<const EndpointLife>>& lives = snapshot.set->lives;
  const double tpot_ms = request.streaming ? request.slo_tpot_ms : -1;
  if (!outcome.primary.empty()) request.charges.Open(lives[outcome.primary[0]], false, tpot_ms);
  if (!outcome.prefill.empty()) request.charges.Open(lives[outcome.prefill[0]], true);
}

}  // namespace llmd::sched
