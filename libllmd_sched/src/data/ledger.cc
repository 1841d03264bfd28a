#include "llmd/sched/ledger.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llmd::sched {
namespace {

constexpr uint64_t kCountMask = 0xffffffff;
constexpr uint64_t kOnePage = uint64_t{1} << 32;

}  // namespace

uint64_t InFlightAccount::Open() {
  requests_.fetch_add(1, kRelaxed);
  return unseen_.fetch_add(1, kRelaxed) & ~kCountMask;
}

void InFlightAccount::Answered(uint64_t mark) {
  uint64_t now = unseen_.load(kRelaxed);
  while ((now & ~kCountMask) == mark && (now & kCountMask) > 0) {
    if (unseen_.compare_exchange_weak(now, now - 1, kRelaxed)) return;
  }
}

// Whoever sees a new page first counts from there.
double InFlightAccount::Unseen(uint64_t page) {
  uint64_t known = page_.load(kRelaxed);
  while (page > known) {
    if (!page_.compare_exchange_weak(known, page, kRelaxed)) continue;
    uint64_t now = unseen_.load(kRelaxed);
    while (!unseen_.compare_exchange_weak(now, (now & ~kCountMask) + kOnePage, kRelaxed)) {
    }
    break;
  }
  return static_cast<double>(unseen_.load(kRelaxed) & kCountMask);
}

int64_t InFlightAccount::Units(double tokens) {
  constexpr double kMost = 1e12;
  if (std::isnan(tokens)) return 0;
  return std::llround(std::clamp(tokens, -kMost, kMost) * kUnits);
}

void InFlightAccount::Promise(double tpot_ms) {
  const std::lock_guard lock(mutex_);
  const auto at = promises_.lower_bound(tpot_ms);
  if (at != promises_.end() && at->first == tpot_ms) {
    ++at->second;
  } else if (spare_.empty()) {
    promises_.emplace_hint(at, tpot_ms, 1);
  } else {
    auto node = std::move(spare_.back());
    spare_.pop_back();
    node.key() = tpot_ms;
    node.mapped() = 1;
    promises_.insert(at, std::move(node));
  }
  tightest_.store(promises_.begin()->first, kRelaxed);
}

void InFlightAccount::Release(double tpot_ms) {
  const std::lock_guard lock(mutex_);
  const auto at = promises_.find(tpot_ms);
  if (at == promises_.end()) return;
  if (--at->second == 0) spare_.push_back(promises_.extract(at));
  tightest_.store(
      promises_.empty() ? std::numeric_limits<double>::infinity() : promises_.begin()->first,
      kRelaxed);
}

LedgerColumn::~LedgerColumn() {
  ledger_->GiveBack(number_);
}

std::shared_ptr<const LedgerColumn> InFlightLedger::Column(const std::string& name) {
  const std::lock_guard lock(mutex_);
  for (const Place& place : places_) {
    if (!place.taken || place.name != name) continue;
    if (auto column = place.column.lock()) return column;
  }
  for (size_t i = 0; i < places_.size(); ++i) {
    Place& place = places_[i];
    if (place.taken) continue;
    auto column = std::make_shared<const LedgerColumn>(shared_from_this(), i);
    place = {name, column, true};
    return column;
  }
  return nullptr;
}

void InFlightLedger::Succeed(std::shared_ptr<const LedgerColumn>& own,
                             std::shared_ptr<const LedgerColumn> old) {
  if (own == old) return;
  {
    const std::lock_guard lock(mutex_);
    std::swap(places_[old->number()].name, places_[own->number()].name);
  }
  own = std::move(old);
}

void InFlightLedger::GiveBack(size_t number) {
  const std::lock_guard lock(mutex_);
  places_[number] = {};
}

}  // namespace llmd::sched
