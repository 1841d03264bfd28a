// Flow control from one configuration to the next, with requests waiting and in flight.
#include <algorithm>

#include "flow/controller.h"

namespace llmd::sched {

void FlowController::Reconfigure(std::shared_ptr<const Graph> graph) {
  {
    std::lock_guard lock(mutex_);
    graph_.swap(graph);  // the old one, in `graph`, outlives the bands of its policies
    config_ = &graph_->flow;
    for (auto& [priority, band] : bands_) Reband(band);
    for (const BandConfig& band : config_->bands) BandOf(band.priority);
    MakeEvictor();
    items_.ForEach(FlowItem::State::kInFlight, [this](FlowItem& item) {
      item.in_victims = kNotInHeap;
      if (evictor_ && item.revoke) evictor_->Track(item);
    });
    items_.ForEach(FlowItem::State::kQueued, [this](FlowItem& item) {
      SetExpiry(item);
      if (item.in_expiry != kNotInHeap) expiry_.Remove(&item);
      if (item.expires != TimePoint::max()) expiry_.Push(&item);
    });
  }
  Pump();
}

void FlowController::Reband(std::unique_ptr<Band>& band) {
  auto [config, configured] = ConfigOf(band->config.priority);
  const bool same_policies =
      config.fairness == band->config.fairness && config.ordering == band->config.ordering;
  if (same_policies) {
    band->config = config;
    band->configured = configured;
  } else {
    auto fresh = std::make_unique<Band>(config, configured);
    fresh->last_used = band->last_used;
    Requeue(*band, *fresh);
    band.swap(fresh);
  }
  ShowUse(*band);
}

// In order of arrival, so that ties are broken as before.
void FlowController::Requeue(Band& from, Band& to) {
  to.fairness->Follow(*from.fairness);
  for (FlowItem* item = from.oldest; item != nullptr;) {
    FlowItem* const next = item->newer;
    item->in_flow = kNotInHeap;
    to.Push(*item, to.FlowOf(item->flow->id));
    item = next;
  }
  items_.ForEach(FlowItem::State::kInFlight, [&](FlowItem& item) {
    if (item.flow->band != &from) return;
    item.flow = &to.FlowOf(item.flow->id);
    ++item.flow->in_flight;
  });
  for (const FlowQueue* flow : from.Flows()) to.Carry(*flow, clock_.Now());
  items_.ForEach(FlowItem::State::kInFlight, [&](FlowItem& item) {
    // Where the new policy keeps no accounts, nor does the next one find any of this request.
    if (item.flow->band == &to && item.flow->account.in_flight <= 0) item.charge = {};
  });
}

}  // namespace llmd::sched
