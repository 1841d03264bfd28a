#include "llmd/sched/charges.h"

#include <utility>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/profile_handler.h"
#include "llmd/sched/request_context.h"

namespace llmd::sched {

double RequestCharges::Entry::tokens() const {
  return InFlightAccount::Tokens(units);
}

void RequestCharges::Open(std::shared_ptr<const EndpointLife> life, Stage stage, double tpot_ms) {
  InFlightAccount& account = life->account();
  if (tpot_ms >= 0) account.Promise(tpot_ms);
  const uint64_t mark = account.Open();
  const EndpointId sent = life->id();
  charges_.push_back(
      {.life = std::move(life), .mark = mark, .sent = sent, .tpot_ms = tpot_ms, .stage = stage});
}

void RequestCharges::Move(std::shared_ptr<const EndpointLife> life) {
  const size_t at = Find(Stage::kAnswer);
  if (at == kNoCharge || !charges_[at].open) return;
  Charge& charge = charges_[at];
  InFlightAccount &from = charge.life->account(), &to = life->account();
  for (const Entry& entry : entries_) {
    if (!entry.open || entry.charge != at) continue;
    from.Add(entry.column->number(), -entry.units);
    to.Add(entry.column->number(), entry.units);
  }
  if (charge.waits) from.Answered(charge.mark);
  charge.mark = to.Open();
  if (!charge.waits) to.Answered(charge.mark);
  from.Close();
  if (charge.tpot_ms >= 0) {
    from.Release(charge.tpot_ms);
    to.Promise(charge.tpot_ms);
  }
  charge.life = std::move(life);
}

void RequestCharges::FirstChunk() {
  for (Entry& entry : entries_) {
    if (entry.until == Until::kFirstChunk) Close(entry);
  }
  for (Charge& charge : charges_) {
    if (std::exchange(charge.waits, false)) charge.life->account().Answered(charge.mark);
    if (charge.stage != Stage::kAnswer) Close(charge);
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

size_t RequestCharges::Find(Stage stage) const {
  for (size_t i = 0; i < charges_.size(); ++i) {
    if (charges_[i].stage == stage) return i;
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
  if (!outcome.primary.empty())
    request.charges.Open(lives[outcome.primary[0]], Stage::kAnswer, tpot_ms);
  if (!outcome.prefill.empty()) request.charges.Open(lives[outcome.prefill[0]], Stage::kPrefill);
  if (!outcome.encode.empty()) request.charges.Open(lives[outcome.encode[0]], Stage::kEncode);
}

}  // namespace llmd::sched
