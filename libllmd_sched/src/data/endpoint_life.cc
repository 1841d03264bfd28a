#include "llmd/sched/endpoint_life.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace llmd::sched {
namespace {

EndpointId NextId() {
  static std::atomic<uint64_t> next{1};
  return EndpointId{next.fetch_add(1, std::memory_order_relaxed)};
}

}  // namespace

uint32_t EndpointSlots::Take() {
  const std::lock_guard lock(mutex_);
  const auto free = std::find(used_.begin(), used_.end(), 0);
  const auto slot = static_cast<uint32_t>(free - used_.begin());
  if (free == used_.end())
    used_.push_back(1);
  else
    *free = 1;
  return slot;
}

void EndpointSlots::GiveBack(uint32_t slot) {
  const std::lock_guard lock(mutex_);
  returned_.push_back(slot);
}

std::vector<uint32_t> EndpointSlots::TakeReturned() {
  const std::lock_guard lock(mutex_);
  return std::exchange(returned_, {});
}

void EndpointSlots::Reuse(const std::vector<uint32_t>& slots) {
  const std::lock_guard lock(mutex_);
  for (const uint32_t slot : slots) used_[slot] = 0;
}

EndpointLife::EndpointLife(uint32_t slot) : id_(NextId()), slot_(slot) {}

EndpointLife::EndpointLife(std::shared_ptr<EndpointSlots> slots)
    : slots_(std::move(slots)), id_(NextId()), slot_(slots_->Take()) {}

EndpointLife::~EndpointLife() {
  if (slots_) slots_->GiveBack(slot_);
}

}  // namespace llmd::sched
