#include "flow/queue.h"

#include <algorithm>
#include <utility>

namespace llmd::sched {

FlowItem& FlowItems::Take() {
  if (free_.empty()) {
    items_.emplace_back();
    items_.back().slot = static_cast<uint32_t>(items_.size() - 1);
    return items_.back();
  }
  FlowItem& item = items_[free_.back()];
  free_.pop_back();
  return item;
}

void FlowItems::Free(FlowItem& item) {
  item.state = FlowItem::State::kFree;
  if (++item.generation == 0) item.generation = 1;
  item.flow = nullptr;
  item.held = false;
  item.series = nullptr;
  item.resume = nullptr;
  item.revoke = nullptr;
  free_.push_back(item.slot);
}

FlowItem* FlowItems::Find(uint64_t ticket, FlowItem::State state) {
  const auto slot = static_cast<uint32_t>(ticket);
  if (slot >= items_.size()) return nullptr;
  FlowItem& item = items_[slot];
  return item.ticket() == ticket && item.state == state ? &item : nullptr;
}

Band::Band(const BandConfig& c, bool configured_band)
    : config(c),
      configured(configured_band),
      fairness(config.fairness->MakeBand(*config.ordering)) {}

FlowQueue& Band::FlowOf(std::string_view id) {
  if (const auto it = flows_.find(id); it != flows_.end()) return *it->second;
  if (flows_.size() < kMaxFlows) return NewFlow(id);
  if (idle_first_ != nullptr) {
    Drop(*idle_first_);
    return NewFlow(id);
  }
  const auto other = flows_.find(kOther);
  return other != flows_.end() ? *other->second : NewFlow(kOther);
}

FlowQueue& Band::NewFlow(std::string_view id) {
  auto flow = std::make_unique<FlowQueue>(*this, *config.ordering);
  flow->id = id;
  return *flows_.emplace(std::string(id), std::move(flow)).first->second;
}

void Band::Push(FlowItem& item, FlowQueue& flow) {
  Unidle(flow);
  item.flow = &flow;
  item.older = std::exchange(newest, &item);
  item.newer = nullptr;
  (item.older ? item.older->newer : oldest) = &item;
  ++requests;
  bytes += static_cast<double>(item.bytes);
  last_used = item.enqueued;
  const bool first = flow.items.empty();
  flow.items.Push(&item);
  const QueuedItem* const before = std::exchange(flow.head, flow.items.top());
  if (first) {
    fairness->Add(flow);
  } else if (before != flow.head) {
    fairness->HeadChanged(flow);
  }
}

void Band::Remove(FlowItem& item, TimePoint now) {
  FlowQueue& flow = *item.flow;
  (item.older ? item.older->newer : oldest) = item.newer;
  (item.newer ? item.newer->older : newest) = item.older;
  item.older = item.newer = nullptr;
  --requests;
  bytes -= static_cast<double>(item.bytes);
  flow.items.Remove(&item);
  if (flow.items.empty()) {
    fairness->Remove(flow);
    flow.head = nullptr;
    MarkIdle(flow, now);
  } else if (flow.head != flow.items.top()) {
    flow.head = flow.items.top();
    fairness->HeadChanged(flow);
  }
}

FlowItem& Band::Next(TimePoint now) {
  FlowCharge charge;
  auto& flow = static_cast<FlowQueue&>(fairness->Next(now, &charge));
  FlowItem& item = *flow.items.top();
  item.charge = charge;
  return item;
}

void Band::Ended(FlowQueue& flow, TimePoint now) {
  --flow.in_flight;
  last_used = now;
  MarkIdle(flow, now);
}

std::vector<const FlowQueue*> Band::Flows() const {
  std::vector<const FlowQueue*> out;
  out.reserve(flows_.size());
  for (const auto& [id, flow] : flows_) out.push_back(flow.get());
  std::sort(out.begin(), out.end(), [](const FlowQueue* a, const FlowQueue* b) {
    return a->idle_since != b->idle_since ? a->idle_since < b->idle_since : a->id < b->id;
  });
  return out;
}

void Band::Carry(const FlowQueue& before, TimePoint now) {
  if (before.idle && flows_.size() >= kMaxFlows) return;
  FlowQueue& flow = FlowOf(before.id);
  fairness->Carry(flow, before);
  MarkIdle(flow, now);
}

void Band::CollectIdle(TimePoint limit) {
  while (idle_first_ != nullptr && idle_first_->idle_since < limit) Drop(*idle_first_);
}

void Band::MarkIdle(FlowQueue& flow, TimePoint now) {
  if (flow.in_flight > 0 || !flow.items.empty() || flow.idle) return;
  flow.idle = true;
  flow.idle_since = now;
  flow.idle_before = std::exchange(idle_last_, &flow);
  flow.idle_after = nullptr;
  (flow.idle_before ? flow.idle_before->idle_after : idle_first_) = &flow;
}

void Band::Unidle(FlowQueue& flow) {
  if (!std::exchange(flow.idle, false)) return;
  (flow.idle_before ? flow.idle_before->idle_after : idle_first_) = flow.idle_after;
  (flow.idle_after ? flow.idle_after->idle_before : idle_last_) = flow.idle_before;
}

void Band::Drop(FlowQueue& flow) {
  Unidle(flow);
  flows_.erase(flows_.find(flow.id));
}

}  // namespace llmd::sched
