#include "llmd/sched/data/scraper.h"

#include <algorithm>
#include <unordered_map>

#include "config/graph.h"
#include "pass/plugin_guard.h"

namespace llmd::sched {
namespace {

// Fetches due within one slot start together: a thread need not wake for each of thousands.
constexpr Duration kSlot = std::chrono::milliseconds(1);

// The endpoint, or the same at the address that its label holds; null when it has no such label.
std::shared_ptr<const EndpointInfo> PeerOf(const std::shared_ptr<const EndpointInfo>& endpoint,
                                           const PageSpec& page) {
  if (page.address_label.empty()) return endpoint;
  const auto label = endpoint->labels.find(page.address_label);
  if (label == endpoint->labels.end() || label->second.empty()) return nullptr;
  auto peer = std::make_shared<EndpointInfo>(*endpoint);
  peer->address = label->second;
  return peer;
}

}  // namespace

struct Scraper::Feed {
  Feed(const SourceBinding& b, const ScraperOptions& options, MetricsRegistry& metrics)
      : binding(b),
        page(b.source->page()),
        interval(page.interval > Duration::zero() ? page.interval : options.interval),
        poll_errors(metrics.AddCounter("llm_d_epp_datalayer_poll_errors_total",
                                       "Failed reads of an endpoint's page",
                                       {{"source_type", b.source->type()}})) {
    for (const Extractor* extractor : b.extractors) {
      extract_errors.push_back(&metrics.AddCounter(
          "llm_d_epp_datalayer_extract_errors_total", "Pages that an extractor could not use",
          {{"source_type", b.source->type()}, {"extractor_type", extractor->type()}}));
    }
  }
  const SourceBinding& binding;
  const PageSpec& page;
  const Duration interval;
  Counter& poll_errors;
  std::vector<Counter*> extract_errors;  // by extractor
};

struct Scraper::Target {
  std::shared_ptr<const EndpointInfo> endpoint;
  std::shared_ptr<const EndpointInfo> peer;  // whom to ask; null = its address is not known
  const Feed* feed = nullptr;
  // Of the endpoint's metrics: its sources read, change and write them.
  std::shared_ptr<std::mutex> writing;
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
      flight_(std::make_shared<Flight>()) {
  for (const SourceBinding& binding : graph_->sources)
    feeds_.push_back(std::make_unique<Feed>(binding, options_, metrics));
}

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
    const Duration wait = std::clamp<Duration>(next - clock_.Now(), kSlot,
                                               std::max<Duration>(kSlot, options_.interval));
    wake_.wait_for(lock, wait, [this] { return stopping_; });
  }
}

// New members get a place in the interval of their own; those that stay keep theirs.
void Scraper::Sync(TimePoint now) {
  std::shared_ptr<const EndpointSet> members = store_.Members();
  if (members == members_) return;
  // An endpoint's targets lie together, one a feed.
  std::unordered_map<const EndpointInfo*, size_t> known;
  for (size_t i = 0; i < targets_.size(); i += feeds_.size())
    known.emplace(targets_[i]->endpoint.get(), i);
  std::vector<std::shared_ptr<Target>> next;
  const size_t total = std::max<size_t>(1, members->size());
  for (size_t i = 0; i < members->size(); ++i) {
    if (const auto old = known.find(members->infos[i].get()); old != known.end()) {
      const auto first = targets_.begin() + static_cast<std::ptrdiff_t>(old->second);
      next.insert(next.end(), first, first + static_cast<std::ptrdiff_t>(feeds_.size()));
      continue;
    }
    const auto writing = std::make_shared<std::mutex>();
    for (const auto& feed : feeds_) {
      auto target = std::make_shared<Target>();
      target->endpoint = members->infos[i];
      target->peer = PeerOf(target->endpoint, feed->page);
      target->feed = feed.get();
      target->writing = writing;
      target->due = now + feed->interval * static_cast<int64_t>(i) / static_cast<int64_t>(total);
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
      const auto missed = (now - target->due) / target->feed->interval;
      target->due += target->feed->interval * (missed + 1);
    }
    next = std::min(next, target->due);
  }
  return next;
}

void Scraper::Begin(const std::shared_ptr<Target>& target) {
  const PageSpec& page = target->feed->page;
  if (!target->peer) {
    return Finish(*target, InvalidArgument("the endpoint has no label '" + page.address_label +
                                           "' that holds the address to ask"));
  }
  fetch_->Get(*target->peer, page, options_.timeout,
              [this, flight = flight_, target](const StatusOr<std::string>& reply) {
                if (!flight->Enter()) return;
                Finish(*target, reply);
                flight->Leave();
              });
}

void Scraper::Finish(Target& target, const StatusOr<std::string>& page) {
  if (!page.ok()) target.feed->poll_errors.Add();
  const Status status = page.ok() ? Extract(target, *page) : page.status();
  // Once per outage: a pool of dead engines must not fill the log twenty times a second.
  if (target.failing.exchange(!status.ok()) != !status.ok()) {
    logger_.Log(status.ok() ? LogLevel::kDefault : LogLevel::kWarn,
                status.ok() ? "Refreshed metrics" : "Failed to refreshed metrics",
                {{"endpoint", target.endpoint->FullName()},
                 {"source", target.feed->binding.source->name()},
                 {"error", status.message()}});
  }
  target.busy.store(false);
}

// An extractor that fails takes nothing from the others, and only the gauges' own keep them fresh.
Status Scraper::Extract(Target& target, const std::string& page) {
  const SourceBinding& binding = target.feed->binding;
  const TimePoint now = clock_.Now();
  const TimePoint fresh_until = now + target.feed->interval + options_.staleness;
  std::lock_guard lock(*target.writing);
  EndpointMetrics metrics = *store_.Metrics(target.endpoint);
  Status failed;
  bool any = false, gauges = false;
  for (size_t i = 0; i < binding.extractors.size(); ++i) {
    Status one;
    Guarded(
        *binding.extractors[i],
        [&] { one = binding.extractors[i]->Extract(page, *target.endpoint, &metrics); },
        [&](Status thrown) { one = std::move(thrown); });
    if (!one.ok()) {
      target.feed->extract_errors[i]->Add();
      if (failed.ok()) failed = std::move(one);
      continue;
    }
    any = true;
    for (AttributeId id : binding.attributes[i]) {
      const size_t at = static_cast<size_t>(id - kFirstAttribute);
      // One that this page did not set keeps the time of the page that did.
      if (at < metrics.attributes.size() && metrics.attributes[at].fresh_until == TimePoint::max())
        metrics.attributes[at].fresh_until = fresh_until;
    }
    if (!binding.extractors[i]->reads_gauges()) continue;
    metrics.updated = now;
    metrics.ever = gauges = true;
  }
  if (!any) return failed;
  store_.SetMetrics(target.endpoint, std::move(metrics), gauges);
  return failed;
}

}  // namespace llmd::sched
