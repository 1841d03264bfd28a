// Reads the sources' pages of all endpoints at their intervals, spread evenly over each interval
// instead of all at once, and puts what the extractors find into the store. One timer thread;
// fetching is the Fetch's business. At most one fetch per endpoint and source is under way; an
// endpoint that fails keeps its old values, which grow stale.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/sched/data/fetch.h"
#include "llmd/sched/data/store.h"

namespace llmd::sched {

struct Graph;

struct ScraperOptions {
  Duration interval = std::chrono::milliseconds(50);
  Duration timeout = std::chrono::seconds(1);
  // Attributes count for this long after their source should have brought them again.
  Duration staleness = std::chrono::seconds(2);
};

// Thread-safe.
class Scraper {
 public:
  // Everything borrowed must outlive Stop; `graph` and `fetch` are kept alive.
  Scraper(std::shared_ptr<const Graph> graph, std::shared_ptr<Fetch> fetch, EndpointStore& store,
          const Clock& clock, Logger logger, MetricsRegistry& metrics, ScraperOptions options);
  ~Scraper();
  // Runs the timer thread. Without it, drive Tick yourself.
  void Start();
  // Joins the thread and waits for fetches under way. Idempotent.
  void Stop();
  // Starts every fetch that is due now; returns when the next is due.
  TimePoint Tick();

 private:
  struct Target;
  struct Flight;
  struct Feed;  // a source with its extractors and their counters
  void Sync(TimePoint now);
  void Begin(const std::shared_ptr<Target>& target);
  void Finish(Target& target, const StatusOr<std::string>& page);
  Status Extract(Target& target, const std::string& page);
  void Run();

  const std::shared_ptr<const Graph> graph_;
  const std::shared_ptr<Fetch> fetch_;
  EndpointStore& store_;
  const Clock& clock_;
  const Logger logger_;
  const ScraperOptions options_;
  std::vector<std::unique_ptr<Feed>> feeds_;
  std::shared_ptr<Flight>
      flight_;  // shared with callbacks, so that late ones find out that we are gone
  std::mutex tick_mutex_;
  std::shared_ptr<const EndpointSet> members_;    // guarded by tick_mutex_
  std::vector<std::shared_ptr<Target>> targets_;  // guarded by tick_mutex_
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace llmd::sched
