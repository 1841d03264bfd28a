// The Director's state, shared by route.cc (a request's way in) and respond.cc (its answer's way
// out).
#pragma once

#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "config/graph.h"
#include "data/file_watch.h"
#include "director/discovery_feed.h"
#include "director/door.h"
#include "director/name_cap.h"
#include "director/request_metrics.h"
#include "life/request_pool.h"
#include "llmd/sched/config_loader.h"
#include "llmd/sched/data/scraper.h"
#include "llmd/sched/data/store.h"
#include "llmd/sched/director.h"
#include "llmd/sched/policy.h"
#include "llmd/snapshot.h"
#include "llmd/tracing.h"
#include "pass/plugin_guard.h"
#include "trace/record.h"

namespace llmd::sched {

struct ProducerWait;

// Of requests that come with none.
inline const HeaderList kNoHeaders;

class DirectorImpl final : public Director {
 public:
  DirectorImpl(DirectorOptions options, std::shared_ptr<Fetch> fetch, Logger logger,
               MetricsRegistry& metrics, const Clock& clock);
  ~DirectorImpl() override {
    Stop();
    door_->Close();
  }
  Status Start();

  void Route(RequestInput input, std::function<void(Routing)> done) override;
  bool RouteNow(RequestInput input, Routing& routing, std::function<void(Routing)> later) override;
  void Cancel(const std::shared_ptr<RequestState>& state) override;
  void OnServed(const std::shared_ptr<RequestState>& state, std::string_view endpoint) override;
  std::vector<ReportedAttribute> TakeReport(const std::shared_ptr<RequestState>& state) override;
  HeaderList OnResponseHeaders(const std::shared_ptr<RequestState>& state, int status,
                               const HeaderList& headers) override;
  bool OnResponseBody(const std::shared_ptr<RequestState>& state, std::string_view chunk, bool end,
                      std::string* replaced) override;
  void OnResponseBodySkipped(const std::shared_ptr<RequestState>& state) override;
  bool wants_response_body() const override { return setup_.Load()->graph->wants_response_body; }
  bool ready() const override { return store_.synced(); }
  std::vector<EndpointInfo> Endpoints() const override;
  std::vector<ServedModel> ServedModels() const override;
  StatusOr<std::string> Explain(std::string_view request_id) const override;
  json::Value Decisions(size_t limit) const override;
  json::Value PluginState() const override;
  TimePoint Tick(TimePoint now) override;
  Status SetEndpoints(std::vector<EndpointInfo> endpoints) override;
  Status SetMetrics(std::string_view name, EndpointMetrics metrics) override;
  Status SetMetrics(EndpointId id, EndpointMetrics metrics) override;
  Status Reload(std::string_view config_yaml) override;
  Status ReloadFile() override;
  std::vector<EndpointHandle> Members() const override;
  void Stop() override;
  // A producer's answer, from any thread; one that comes too late finds nothing.
  static void Produced(const std::shared_ptr<ProducerWait>& wait, const Status& status);

 private:
  std::shared_ptr<RequestState> Receive(RequestInput input, std::function<void(Routing)> done);
  void Begin(std::shared_ptr<RequestState> q);
  Status Read(RequestState& q);
  void Admit(std::shared_ptr<RequestState> q);
  // Decides; where a producer may wait, once all of them have run.
  void Prepare(std::shared_ptr<RequestState> q);
  // The answer of a director that was stopped.
  void DenyStopped(const std::shared_ptr<RequestState>& q);
  void RunProducers(std::shared_ptr<RequestState> q, size_t next);
  void Wait(const std::shared_ptr<RequestState>& q, size_t producer);
  std::shared_ptr<ProducerWait> AddWait(const std::shared_ptr<RequestState>& q, size_t producer);
  // It waits no more.
  void Forget(ProducerWait& wait);
  // After the producer that the request waited for; of whoever took the wait.
  void GoOn(ProducerWait& wait, const Status& status);
  // Refuses those that have waited too long; at TimePoint::max() all.
  void EndWaits(TimePoint now);
  // After slow producers: takes out who has left meanwhile. False when nobody is left and it looks
  // again, once.
  bool Recheck(const std::shared_ptr<RequestState>& q);
  // Tells the producers that may wait what the time is, those of replaced graphs too.
  void TickProducers(TimePoint now);
  // When one of them wants to be told next.
  TimePoint ProducersDue(TimePoint now);
  // When the gate may open by the passing of time; max = never.
  TimePoint GateDue(const FlowController& flow, TimePoint now);
  // The present graph and those with requests under way.
  std::vector<std::shared_ptr<const Graph>> LiveGraphs();
  void Decide(const std::shared_ptr<RequestState>& self);
  // Refuses before a decision was begun; the record holds the cause only.
  void Deny(const std::shared_ptr<RequestState>& q, int status, std::string message,
            std::string reason);
  // Refuses with what the decision came to.
  void Deny(const std::shared_ptr<RequestState>& q, DecisionRecord& record, int status,
            std::string message, std::string reason);
  void Refuse(const std::shared_ptr<RequestState>& q, int status, std::string message,
              std::string reason);
  void Describe(const RequestState& q, DecisionRecord& record) const;
  void Grant(const std::shared_ptr<RequestState>& q, const Snapshot& snapshot,
             const ScheduleOutcome& outcome, DecisionRecord& record);
  // Hands on what is asked of the decision; the scores are those of `primary_profile`.
  // The request is on its way: hooks, charges, figures. False when it was cancelled before. With
  // the turn.
  bool Commit(RequestState& q, const Snapshot& snapshot, const ScheduleOutcome& outcome,
              Routing& routing);
  // The decision in HTTP's terms.
  void Address(RequestState& q, const Snapshot& snapshot, const ScheduleOutcome& outcome,
               Routing& routing);
  void Keep(RequestState& q, DecisionRecord& record, int primary_profile, Routing& routing);
  // Puts it in the ring, and in the answer's headers where the caller asked and may.
  void Remember(RequestState& q, DecisionRecord& record);
  // Gives the request its place in a trace.
  void Trace(RequestState& q, uint64_t& ids);
  bool MayExplain(const RequestContext& request) const;
  // Whom the proxy's subset and the caller's exclusions leave.
  void SetEligible(RequestState& q, const Snapshot& snapshot) const;
  void AddEligible(RequestState& q, const Snapshot& snapshot) const;
  // The pool is full, and there is somebody who might serve the request.
  bool Saturated(RequestState& q) const;
  // The pool has endpoints, but none that the request may go to.
  bool NobodyMay(RequestState& q) const;
  void Dispatched(const std::shared_ptr<RequestState>& q, const FlowResult& result);
  void Evict(RequestState& q);
  // Moves a request that waited through a reload over to the configuration of now.
  void Refresh(RequestState& q) const;
  void OnEndpoints(std::vector<EndpointInfo> endpoints, std::shared_ptr<const PoolPolicy> policy);
  std::shared_ptr<const PoolPolicy> Policy() const;
  void Maintain();
  // Something waits whose time may come.
  bool Busy() const;
  Status SetMetrics(const EndpointSet& members, size_t i, EndpointMetrics metrics);
  // Its wait was reckoned when there was less to do.
  void WakeMaintenance();

  // This thread is in a callback of a request of this director.
  bool InCallback() const;
  // Calls `reload` under reload_mutex_; what it makes room for is dispatched after that.
  Status Locked(const std::function<Status()>& reload);

  // reload.cc; all under reload_mutex_.
  Status MayReload();
  LoadOptions Loading() const;
  Status Apply(std::string_view yaml);
  Status Discover(const Graph& graph);
  void Scrape(const std::shared_ptr<const Graph>& graph);
  void Publish(const std::shared_ptr<const Graph>& graph);
  void FileChanged();
  Status Finished(Status status);
  void ForObservers(const std::function<void(EndpointObserver&)>& tell);

  const DirectorOptions options_;
  const std::shared_ptr<Fetch> fetch_;
  const Logger logger_;
  MetricsRegistry& registry_;
  const Clock& clock_;
  EndpointStore store_;
  llmd::Snapshot<Setup> setup_;
  mutable std::mutex policy_mutex_;
  std::shared_ptr<const PoolPolicy> policy_;  // null = none known; guarded by policy_mutex_
  RequestMetrics metrics_;
  PluginFailures failures_;
  DecisionRing ring_;
  const std::shared_ptr<RequestPool> requests_ = std::make_shared<RequestPool>();
  const bool recording_;  // someone may ask which endpoints a decision saw
  const uint64_t seed_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<TimePoint> show_load_at_{TimePoint()};
  std::atomic<int> slow_waiting_{0};  // requests whose producers wait
  std::mutex waits_mutex_;
  std::list<std::shared_ptr<ProducerWait>> waits_;  // in order of arrival; guarded by waits_mutex_
  // Through which they come back.
  const std::shared_ptr<Door<DirectorImpl>> door_ = std::make_shared<Door<DirectorImpl>>(*this);
  std::mutex stop_mutex_;  // held throughout Stop
  std::mutex reload_mutex_;
  bool stopped_ = false;                     // for good; guarded by reload_mutex_
  std::string seen_yaml_;                    // last read, good or bad; guarded by reload_mutex_
  std::shared_ptr<const Graph> scraped_;     // that scraper_ uses; guarded by reload_mutex_
  std::unique_ptr<Scraper> scraper_;         // guarded by reload_mutex_
  Discovery* discovery_ = nullptr;           // running; guarded by reload_mutex_
  std::shared_ptr<const Graph> discovered_;  // that it belongs to; guarded by reload_mutex_
  std::shared_ptr<DiscoveryFeed> feed_;      // of discovery_; guarded by reload_mutex_
  std::shared_ptr<FlowController> flow_;     // stays when the gate is off again
  FileWatch watch_;
  std::mutex graphs_mutex_;
  std::vector<std::weak_ptr<const Graph>>
      graphs_;  // with requests under way; guarded by graphs_mutex_
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  bool idle_ = false;      // maintenance sleeps long; guarded by mutex_
  std::thread maintenance_;
};

}  // namespace llmd::sched
