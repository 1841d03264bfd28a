#include "flow/controller.h"

#include <algorithm>
#include <cmath>

#include "pass/stopwatch.h"

namespace llmd::sched {
namespace {

TimePoint After(TimePoint start, Duration ttl) {
  // Whoever wants to wait longer than the clock can say waits for ever.
  return ttl > Duration::zero() && ttl < TimePoint::max() - start ? start + ttl : TimePoint::max();
}

double Seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

// Counts a request that is being decided on, without the lock; whatever is thrown meanwhile.
class Deciding {
 public:
  Deciding(size_t& count, std::unique_lock<std::mutex>& lock) : count_(count), lock_(lock) {
    ++count_;
    lock_.unlock();
  }
  ~Deciding() {
    lock_.lock();
    --count_;
  }
  Deciding(const Deciding&) = delete;
  Deciding& operator=(const Deciding&) = delete;

 private:
  size_t& count_;
  std::unique_lock<std::mutex>& lock_;
};

}  // namespace

FlowController::FlowController(std::shared_ptr<const Graph> graph, const Clock& clock,
                               MetricsRegistry& metrics, std::string pool, FlowHooks hooks,
                               Duration refresh)
    : clock_(clock),
      refresh_(refresh),
      metrics_(metrics, std::move(pool)),
      hooks_(std::move(hooks)),
      graph_(std::move(graph)),
      config_(&graph_->flow) {
  MakeEvictor();
  for (const BandConfig& band : config_->bands) BandOf(band.priority);
}

FlowController::~FlowController() {
  Stop();
}

void FlowController::MakeEvictor() {
  const std::unique_ptr<Evictor> before = std::exchange(evictor_, nullptr);
  if (config_->eviction_filter == nullptr) return;
  evictor_ = std::make_unique<Evictor>(*config_->eviction_filter, *config_->eviction_order,
                                       graph_->saturation->ReactionTime(refresh_), metrics_);
  if (before) evictor_->Carry(*before);
}

std::pair<BandConfig, bool> FlowController::ConfigOf(int priority) const {
  BandConfig config = priority < 0 ? config_->default_negative_band : config_->default_band;
  bool configured = false;
  for (const BandConfig& c : config_->bands) {
    if (c.priority != priority) continue;
    config = c;
    configured = true;
  }
  config.priority = priority;
  return {config, configured};
}

Band& FlowController::BandOf(int priority) {
  if (const auto it = bands_.find(priority); it != bands_.end()) return *it->second;
  if (bands_.size() >= kMaxBands && priority != 0) return BandOf(0);
  const auto [config, configured] = ConfigOf(priority);
  priorities_.insert(
      std::lower_bound(priorities_.begin(), priorities_.end(), priority, std::greater<>()),
      priority);
  ceilings_.resize(priorities_.size());
  Band& band = *bands_.emplace(priority, std::make_unique<Band>(config, configured)).first->second;
  band.last_used = clock_.Now();
  ShowUse(band);
  return band;
}

bool FlowController::Fits(const FlowRequest& request) const {
  return (config_->max_requests <= 0 ||
          static_cast<double>(requests_ + 1) <= config_->max_requests) &&
         (config_->max_bytes <= 0 ||
          bytes_ + static_cast<double>(request.bytes) <= config_->max_bytes);
}

// A band's own capacity is its own affair; in the global one higher bands may displace sheddable
// requests of lower ones, newest of the lowest first.
bool FlowController::Admit(const FlowRequest& request, Band& band, Ended& ended) {
  if (static_cast<double>(band.requests + 1) > band.config.max_requests) return false;
  if (band.bytes + static_cast<double>(request.bytes) > band.config.max_bytes) return false;
  return Fits(request) || Displace(request, ended);
}

bool FlowController::Displace(const FlowRequest& request, Ended& ended) {
  if (evictor_ == nullptr) return false;
  double requests = 0, bytes = 0;
  for (const auto& [priority, band] : bands_) {
    if (priority >= 0 || priority >= request.priority) continue;
    requests += static_cast<double>(band->requests);
    bytes += band->bytes;
  }
  const bool helps = (config_->max_requests <= 0 ||
                      static_cast<double>(requests_ + 1) - requests <= config_->max_requests) &&
                     (config_->max_bytes <= 0 ||
                      bytes_ + static_cast<double>(request.bytes) - bytes <= config_->max_bytes);
  if (!helps) return false;
  const TimePoint now = clock_.Now();
  for (auto it = bands_.rbegin(); it != bands_.rend() && !Fits(request); ++it) {
    while (it->second->newest != nullptr && !Fits(request)) {
      ended.push_back(Leave(*it->second->newest, FlowOutcome::kDisplaced, now));
    }
  }
  return true;
}

void FlowController::SetExpiry(FlowItem& item) const {
  const Duration ttl = was_empty_ ? config_->no_endpoint_ttl : config_->default_ttl;
  item.expires = std::min(After(item.regime_start, ttl), item.own_deadline);
}

FlowItem& FlowController::Queue(FlowRequest request, Band& band, const FlowSeries& series) {
  FlowItem& item = items_.Take();
  const TimePoint now = clock_.Now();
  item.state = FlowItem::State::kQueued;
  item.sequence = next_sequence_++;
  item.enqueued = now;
  item.regime_start = request.received == TimePoint() ? now : std::min(now, request.received);
  item.own_deadline = After(item.regime_start, request.ttl);
  item.deadline = std::min(After(item.regime_start, config_->default_ttl), item.own_deadline);
  item.slo_deadline = request.slo_deadline;
  item.bytes = request.bytes;
  item.prompt_tokens = request.prompt_tokens;
  item.max_output_tokens = request.max_output_tokens;
  item.charge = {};
  item.series = &series;
  item.resume = std::move(request.resume);
  SetExpiry(item);
  if (item.expires != TimePoint::max()) expiry_.Push(&item);
  band.Push(item, band.FlowOf(request.flow));
  size_.store(++requests_, std::memory_order_relaxed);
  bytes_ += static_cast<double>(item.bytes);
  series.size->Add(1);
  series.bytes->Add(static_cast<double>(item.bytes));
  ShowUse(band);
  return item;
}

uint64_t FlowController::Enqueue(FlowRequest request) {
  Stopwatch watch(clock_);
  Ended ended;
  uint64_t ticket = 0;
  {
    std::lock_guard lock(mutex_);
    Band& band = BandOf(request.priority);
    const FlowSeries& series =
        metrics_.Of(request.flow, band.config.priority, request.model, request.target_model);
    FollowRegime(clock_.Now());
    FlowOutcome refused{};
    const bool admitted = !stopped_ && (!config_->enabled || Admit(request, band, ended));
    if (admitted) {
      FlowItem& item = Queue(std::move(request), band, series);
      ticket = item.ticket();
      if (request.ticket != nullptr) request.ticket->store(ticket);
      if (!config_->enabled) ended.push_back(Leave(item, FlowOutcome::kDispatched, clock_.Now()));
    } else {
      refused = stopped_     ? FlowOutcome::kRejectedShuttingDown
                : was_empty_ ? FlowOutcome::kRejectedNoEndpoints
                             : FlowOutcome::kRejectedCapacity;
      metrics_.Left(series, refused, 0);
      ended.emplace_back(std::move(request.resume), FlowResult{.outcome = refused});
    }
    metrics_.Enqueued(series, admitted ? nullptr : &refused, Seconds(watch.Lap()));
  }
  Run(ended);
  Pump();
  return ticket;
}

FlowController::Resume FlowController::Leave(FlowItem& item, FlowOutcome outcome, TimePoint now) {
  FlowQueue& flow = *item.flow;
  Band& band = *flow.band;
  Resume out;
  out.first = std::move(item.resume);
  out.second = {.outcome = outcome, .ticket = item.ticket(), .waited = now - item.enqueued};
  if (item.sequence <= blocked_up_to_) out.second.reason = block_reason_;
  if (item.in_expiry != kNotInHeap) expiry_.Remove(&item);
  const bool dispatched = outcome == FlowOutcome::kDispatched;
  if (dispatched) ++flow.in_flight;  // before it leaves: the flow is not idle
  band.Remove(item, now);
  size_.store(--requests_, std::memory_order_relaxed);
  bytes_ -= static_cast<double>(item.bytes);
  item.series->size->Add(-1);
  item.series->bytes->Add(-static_cast<double>(item.bytes));
  ShowUse(band);
  metrics_.Left(*item.series, outcome, Seconds(out.second.waited));
  if (dispatched) {
    item.state = FlowItem::State::kInFlight;
    item.in_flight = {
        .sequence = item.sequence, .priority = band.config.priority, .dispatched = now};
    ++in_flight_;
    drain_.Dispatched(now);
  } else {
    items_.Free(item);
  }
  return out;
}

PoolLoad FlowController::ReadLoad() {
  const PoolLoad load = hooks_.load();
  metrics_.saturation_prefill.Set(load.prefill);
  metrics_.saturation_decode.Set(load.decode);
  metrics_.saturation_effective.Set(load.effective);
  return load;
}

void FlowController::ShowLoad() {
  std::lock_guard lock(mutex_);
  ReadLoad();
}

FlowItem* FlowController::Choose(TimePoint now) {
  if (requests_ == 0 || stopped_) return nullptr;
  if (!config_->enabled) return Oldest();
  if (was_empty_) {
    blocked_up_to_ = next_sequence_ - 1;
    block_reason_ = "no-endpoints";
    return nullptr;
  }
  const PoolLoad load = ReadLoad();
  Guarded(
      *config_->limit, [&] { config_->limit->Ceilings(load.effective, priorities_, ceilings_); },
      [&](const Status& status) {
        std::fill(ceilings_.begin(), ceilings_.end(), 1);
        hooks_.failed(*config_->limit, status);
      });
  size_t rank = 0;
  for (auto it = bands_.begin(); it != bands_.end(); ++it, ++rank) {
    if (it->second->requests == 0) continue;
    // A closed gate holds lower bands too: they must not overtake.
    if (load.effective >= ceilings_[rank]) {
      Blocked(load, it, rank, now);
      return nullptr;
    }
    // Whoever decides on those comes back here afterwards.
    if (deciding_ + held_ > 0 && load.effective + UnderWay(load) >= ceilings_[rank]) return nullptr;
    return &it->second->Next(now);
  }
  return nullptr;
}

FlowItem* FlowController::Oldest() {
  for (const auto& [priority, band] : bands_) {
    if (band->oldest != nullptr) return band->oldest;
  }
  return nullptr;
}

void FlowController::Blocked(const PoolLoad& load,
                             std::map<int, std::unique_ptr<Band>, std::greater<>>::iterator at,
                             size_t rank, TimePoint now) {
  blocked_up_to_ = next_sequence_ - 1;
  block_reason_ = load.stale > 0 ? "stale-metrics" : "saturated";
  if (evictor_ == nullptr) return;
  demands_.clear();
  for (; at != bands_.end(); ++at, ++rank) {
    if (at->second->requests > 0) demands_.push_back({at->first, ceilings_[rank]});
  }
  for (FlowItem* const victim : evictor_->Choose(load.effective, demands_, in_flight_, now)) {
    revocations_.push_back(std::exchange(victim->revoke, nullptr));
  }
}

void FlowController::Pump() {
  if (pumping_ == this) return;  // from within a dispatch: its loop goes on by itself
  const Pause pause(this);
  std::unique_lock lock(mutex_);
  do {
    while (DispatchOne(lock)) {
    }
  } while (Revoke(lock));
}

bool FlowController::DispatchOne(std::unique_lock<std::mutex>& lock) {
  Stopwatch watch(clock_);
  const TimePoint now = clock_.Now();
  FollowRegime(now);
  FlowItem* const item = Choose(now);
  if (item == nullptr) return false;
  Resume resume = Leave(*item, FlowOutcome::kDispatched, now);
  metrics_.cycle.Observe(Seconds(watch.Lap()));
  const Deciding deciding(deciding_, lock);
  resume.first(resume.second);
  resume.first = nullptr;  // what it holds may come back here
  return true;
}

bool FlowController::Revoke(std::unique_lock<std::mutex>& lock) {
  if (revocations_.empty()) return false;
  std::vector<std::function<void()>> revocations = std::exchange(revocations_, {});
  lock.unlock();
  for (const std::function<void()>& revoke : revocations) revoke();
  revocations.clear();
  lock.lock();
  return true;
}

void FlowController::Revocable(uint64_t ticket, std::function<void()> revoke) {
  std::lock_guard lock(mutex_);
  FlowItem* const item = items_.Find(ticket, FlowItem::State::kInFlight);
  if (evictor_ == nullptr || item == nullptr) return;
  item->revoke = std::move(revoke);
  evictor_->Track(*item);
}

void FlowController::Run(Ended& ended) {
  for (auto& [resume, result] : ended) resume(result);
}

void FlowController::ShowUse(const Band& band) {
  metrics_.Use(band.config.priority, static_cast<double>(band.requests) / band.config.max_requests,
               band.bytes / band.config.max_bytes);
  metrics_.GlobalUse(static_cast<double>(requests_), bytes_, config_->max_requests,
                     config_->max_bytes);
}

int FlowController::RetryAfter(int priority) const {
  std::lock_guard lock(mutex_);
  size_t ahead = 0;
  for (const auto& [p, band] : bands_) {
    if (p >= priority) ahead += band->requests;
  }
  return drain_.RetryAfter(clock_.Now(), ahead);
}

size_t FlowController::flow_count() const {
  std::lock_guard lock(mutex_);
  size_t n = 0;
  for (const auto& [priority, band] : bands_) n += band->flow_count();
  return n;
}

size_t FlowController::band_count() const {
  std::lock_guard lock(mutex_);
  return bands_.size();
}

}  // namespace llmd::sched
