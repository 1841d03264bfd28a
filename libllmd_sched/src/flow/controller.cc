#include "flow/controller.h"

#include <algorithm>

#include "plugins/flow/flow_policies.h"

namespace llmd::sched {
namespace {

const char* Name(FlowOutcome outcome) {
  switch (outcome) {
    case FlowOutcome::kDispatched:
      return "Dispatched";
    case FlowOutcome::kRejectedCapacity:
      return "RejectedCapacity";
    case FlowOutcome::kRejectedNoEndpoints:
      return "RejectedNoEndpoints";
    case FlowOutcome::kEvictedTtl:
      return "EvictedTTL";
    case FlowOutcome::kEvictedNoEndpoints:
      return "EvictedNoEndpoints";
    case FlowOutcome::kCancelled:
      return "EvictedContextCancelled";
    case FlowOutcome::kShuttingDown:
      return "EvictedOther";
  }
  return "";
}

TimePoint After(TimePoint start, Duration ttl) {
  return ttl > Duration::zero() ? start + ttl : TimePoint::max();
}

}  // namespace

FlowController::FlowController(std::shared_ptr<const Graph> graph, const Clock& clock,
                               MetricsRegistry& metrics, std::string pool,
                               std::function<double()> saturation, std::function<bool()> empty)
    : graph_(std::move(graph)),
      config_(graph_->flow),
      clock_(clock),
      metrics_(metrics),
      pool_(std::move(pool)),
      saturation_(std::move(saturation)),
      empty_(std::move(empty)),
      saturation_gauge_(metrics.AddGauge("llm_d_epp_flow_control_pool_saturation",
                                         "1 closes the gate",
                                         {{"inference_pool", pool_}, {"stage", "effective"}})),
      queue_gauge_(metrics.AddGauge("llm_d_epp_flow_control_queue_size", "Requests waiting",
                                    {{"inference_pool", pool_}})) {
  for (const BandConfig& band : config_.bands) BandOf(band.priority);
}

FlowController::~FlowController() {
  Stop();
}

FlowController::Band& FlowController::BandOf(int priority) {
  if (const auto it = bands_.find(priority); it != bands_.end()) return it->second;
  Band band;
  band.config = priority < 0 ? config_.default_negative_band : config_.default_band;
  for (const BandConfig& c : config_.bands) {
    if (c.priority == priority) band.config = c;
  }
  band.config.priority = priority;
  priorities_.insert(
      std::lower_bound(priorities_.begin(), priorities_.end(), priority, std::greater<>()),
      priority);
  return bands_.emplace(priority, std::move(band)).first->second;
}

bool FlowController::Fits(const Band& band, size_t bytes) const {
  const double b = static_cast<double>(bytes);
  const bool band_fits = static_cast<double>(band.requests + 1) <= band.config.max_requests &&
                         band.bytes + b <= band.config.max_bytes;
  const bool all_fits =
      (config_.max_requests <= 0 || static_cast<double>(requests_ + 1) <= config_.max_requests) &&
      (config_.max_bytes <= 0 || bytes_ + b <= config_.max_bytes);
  return band_fits && all_fits;
}

uint64_t FlowController::Enqueue(FlowRequest request) {
  Ended ended;
  uint64_t ticket = 0;
  {
    std::lock_guard lock(mutex_);
    Band& band = BandOf(request.priority);
    if (stopped_ || !Fits(band, request.bytes)) {
      const FlowOutcome outcome = stopped_   ? FlowOutcome::kShuttingDown
                                  : empty_() ? FlowOutcome::kRejectedNoEndpoints
                                             : FlowOutcome::kRejectedCapacity;
      Count(outcome, request.priority);
      ended.emplace_back(std::move(request.resume), outcome);
    } else {
      auto item = std::make_unique<Item>();
      item->sequence = ticket = next_ticket_++;
      item->enqueued = item->regime_start = clock_.Now();
      item->deadline = After(item->enqueued, config_.default_ttl);
      item->slo_deadline = request.slo_deadline;
      item->bytes = request.bytes;
      item->request = std::move(request);
      queue_gauge_.Set(static_cast<double>(++requests_));
      ++band.requests;
      bytes_ += static_cast<double>(item->bytes);
      band.bytes += static_cast<double>(item->bytes);
      const auto flow =
          band.flows.try_emplace(item->request.flow, Later{band.config.ordering}).first;
      flow->second.insert(std::move(item));
    }
  }
  Run(std::move(ended));
  Pump();
  return ticket;
}

std::unique_ptr<FlowController::Item> FlowController::Take(
    Band& band, std::map<std::string, Queue>::iterator flow, Queue::iterator at) {
  std::unique_ptr<Item> item = std::move(flow->second.extract(at).value());
  if (flow->second.empty()) band.flows.erase(flow);
  queue_gauge_.Set(static_cast<double>(--requests_));
  --band.requests;
  bytes_ -= static_cast<double>(item->bytes);
  band.bytes -= static_cast<double>(item->bytes);
  return item;
}

std::unique_ptr<FlowController::Item> FlowController::PopNext() {
  if (requests_ == 0 || empty_()) return nullptr;
  const double saturation = saturation_();
  saturation_gauge_.Set(saturation);
  for (auto& [priority, band] : bands_) {
    if (band.flows.empty()) continue;
    const auto rank = std::find(priorities_.begin(), priorities_.end(), priority);
    // A closed gate holds lower bands too: they must not overtake.
    const size_t at = static_cast<size_t>(rank - priorities_.begin());
    if (saturation >= config_.limit->Ceiling(at, priorities_)) return nullptr;
    std::vector<FlowView> views;
    for (auto& [flow, queue] : band.flows) views.push_back({&flow, queue.begin()->get()});
    const size_t chosen = band.config.fairness->Next(views, band.last, *band.config.ordering);
    const auto flow = band.flows.find(*views[chosen].flow);
    band.last = flow->first;
    return Take(band, flow, flow->second.begin());
  }
  return nullptr;
}

void FlowController::Pump() {
  std::unique_lock lock(mutex_);
  // One dispatcher at a time: the gate must see each dispatch before the next.
  again_ = true;
  if (pumping_) return;
  pumping_ = true;
  while (std::exchange(again_, false)) {
    while (std::unique_ptr<Item> item = stopped_ ? nullptr : PopNext()) {
      Count(FlowOutcome::kDispatched, item->request.priority);
      lock.unlock();
      item->request.resume(FlowOutcome::kDispatched);
      lock.lock();
    }
  }
  pumping_ = false;
}

void FlowController::EndIf(const std::function<bool(const Item&)>& wanted, FlowOutcome outcome,
                           Ended& ended) {
  for (auto& [priority, band] : bands_) {
    for (auto flow = band.flows.begin(); flow != band.flows.end();) {
      const auto next_flow = std::next(flow);
      for (auto at = flow->second.begin(); at != flow->second.end();) {
        const auto next = std::next(at);
        const bool last = flow->second.size() == 1;
        if (wanted(**at)) {
          std::unique_ptr<Item> item = Take(band, flow, at);
          Count(outcome, priority);
          ended.emplace_back(std::move(item->request.resume), outcome);
          if (last) break;
        }
        at = next;
      }
      flow = next_flow;
    }
  }
}

void FlowController::Expire() {
  Ended ended;
  {
    std::lock_guard lock(mutex_);
    const TimePoint now = clock_.Now();
    const bool empty = empty_();
    // The clock of waiting requests restarts when the pool becomes empty, or usable again.
    if (std::exchange(was_empty_, empty) != empty) {
      for (auto& [priority, band] : bands_) {
        for (auto& [flow, queue] : band.flows) {
          for (const auto& item : queue) item->regime_start = now;
        }
      }
    }
    const Duration ttl = empty ? config_.no_endpoint_ttl : config_.default_ttl;
    EndIf([&](const Item& item) { return After(item.regime_start, ttl) <= now; },
          empty ? FlowOutcome::kEvictedNoEndpoints : FlowOutcome::kEvictedTtl, ended);
  }
  Run(std::move(ended));
}

void FlowController::Cancel(uint64_t ticket) {
  Ended ended;
  {
    std::lock_guard lock(mutex_);
    EndIf([&](const Item& item) { return item.sequence == ticket; }, FlowOutcome::kCancelled,
          ended);
  }
  Run(std::move(ended));
}

void FlowController::Stop() {
  Ended ended;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    EndIf([](const Item&) { return true; }, FlowOutcome::kShuttingDown, ended);
  }
  Run(std::move(ended));
}

void FlowController::Run(Ended ended) {
  for (auto& [resume, outcome] : ended) resume(outcome);
}

void FlowController::Count(FlowOutcome outcome, int priority) {
  Counter*& counter = BandOf(priority).outcomes[static_cast<size_t>(outcome)];
  if (counter == nullptr) {
    counter = &metrics_.AddCounter("llm_d_epp_flow_control_requests_total",
                                   "Requests that left flow control",
                                   {{"outcome", Name(outcome)},
                                    {"priority", std::to_string(priority)},
                                    {"inference_pool", pool_}});
  }
  counter->Add();
}

size_t FlowController::size() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

}  // namespace llmd::sched
