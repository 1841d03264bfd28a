#include "llmd/sched/data/scraper.h"

#include <algorithm>

#include "graph.h"

namespace llmd::sched {

struct Scraper::Target {
  std::shared_ptr<const EndpointInfo> endpoint;
  const SourceBinding* binding = nullptr;
  Duration interval{};
  TimePoint due{};
  std::atomic<bool> busy{false};
  std::atomic<bool> failing{false};
};

struct Scraper::Flight {
  std::mutex mutex;
  std::condition_variable idle;
  int running = 0;      // callbacks now inside the scraper; guarded by mutex
  bool closed = false;  // guarded by mutex
  bool Enter() {
    std::lock_guard lock(mutex);
    if (closed) return false;
    ++running;
    return true;
  }
  void Leave() {
    std::lock_guard lock(mutex);
    if (--running == 0) idle.notify_all();
  }
  void Close() {
    std::unique_lock lock(mutex);
    closed = true;
    idle.wait(lock, [this] { return running == 0; });
  }
};

Scraper::Scraper(std::shared_ptr<const Graph> graph, std::shared_ptr<Fetch> fetch,
                 EndpointStore& store, const Clock& clock, Logger logger, MetricsRegistry& metrics,
                 ScraperOptions options)
    : graph_(std::move(graph)),
      fetch_(std::move(fetch)),
      store_(store),
      clock_(clock),
      logger_(std::move(logger)),
      options_(options),
      errors_(metrics.AddCounter("llm_d_epp_datalayer_poll_errors_total",
                                 "Failed reads of an endpoint's page",
                                 {{"source_type", "metrics-data-source"}})),
      flight_(std::make_shared<Flight>()) {}

Scraper::~Scraper() {
  Stop();
}

void Scraper::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Scraper::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  flight_->Close();
}

void Scraper::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    const TimePoint next = Tick();
    lock.lock();
    const Duration wait = std::clamp<Duration>(next - clock_.Now(), std::chrono::microseconds(100),
                                               options_.interval);
    wake_.wait_for(lock, wait, [this] { return stopping_; });
  }
}

// New members get a place in the interval of their own; those that stay keep theirs.
void Scraper::Sync(TimePoint now) {
  std::shared_ptr<const EndpointSet> members = store_.Members();
  if (members == members_) return;
  std::vector<std::shared_ptr<Target>> next;
  const size_t total = std::max<size_t>(1, members->size());
  for (size_t i = 0; i < members->size(); ++i) {
    for (const SourceBinding& binding : graph_->sources) {
      const auto old = std::find_if(targets_.begin(), targets_.end(), [&](const auto& t) {
        return t->endpoint == members->infos[i] && t->binding == &binding;
      });
      if (old != targets_.end()) {
        next.push_back(*old);
        continue;
      }
      auto target = std::make_shared<Target>();
      target->endpoint = members->infos[i];
      target->binding = &binding;
      const Duration own = binding.source->page().interval;
      target->interval = own > Duration::zero() ? own : options_.interval;
      target->due = now + target->interval * static_cast<int64_t>(i) / static_cast<int64_t>(total);
      next.push_back(std::move(target));
    }
  }
  members_ = std::move(members);
  targets_ = std::move(next);
}

TimePoint Scraper::Tick() {
  std::lock_guard lock(tick_mutex_);
  const TimePoint now = clock_.Now();
  Sync(now);
  TimePoint next = now + options_.interval;
  for (const auto& target : targets_) {
    if (target->due <= now) {
      if (!target->busy.exchange(true)) Begin(target);
      // Missed turns are left out, the place in the interval is kept.
      const auto missed = (now - target->due) / target->interval;
      target->due += target->interval * (missed + 1);
    }
    next = std::min(next, target->due);
  }
  return next;
}

void Scraper::Begin(const std::shared_ptr<Target>& target) {
  const PageSpec& page = target->binding->source->page();
  fetch_->Get(*target->endpoint, page.port, page.path, options_.timeout,
              [this, flight = flight_, target](StatusOr<std::string> reply) {
                if (!flight->Enter()) return;
                Status status = reply.status();
                if (reply.ok()) {
                  EndpointMetrics metrics = *store_.Metrics(target->endpoint);
                  for (Extractor* extractor : target->binding->extractors) {
                    Status one = extractor->Extract(*reply, *target->endpoint, &metrics);
                    if (status.ok()) status = std::move(one);
                  }
                  if (status.ok()) {
                    metrics.updated = clock_.Now();
                    metrics.ever = true;
                    store_.SetMetrics(target->endpoint, std::move(metrics));
                  }
                }
                if (!status.ok()) errors_.Add();
                // Once per outage: a pool of dead engines must not fill the log twenty times a
                // second.
                if (target->failing.exchange(!status.ok()) != !status.ok()) {
                  logger_.Log(
                      status.ok() ? LogLevel::kDefault : LogLevel::kWarn,
                      status.ok() ? "Refreshed metrics" : "Failed to refreshed metrics",
                      {{"endpoint", target->endpoint->FullName()}, {"error", status.message()}});
                }
                target->busy.store(false);
                flight->Leave();
              });
}

}  // namespace llmd::sched
