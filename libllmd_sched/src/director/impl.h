// The Director's state, shared by route.cc (a request's way in) and respond.cc (its answer's way
// out).
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "director/request_metrics.h"
#include "director/response_scan.h"
#include "flow/controller.h"
#include "graph.h"
#include "llmd/sched/data/scraper.h"
#include "llmd/sched/data/store.h"
#include "llmd/sched/director.h"
#include "llmd/sched/policy.h"
#include "record.h"

namespace llmd::sched {

// One request from Route to the end of its answer. Ends itself when it is dropped. Guarded by its
// mutex once routed.
class RequestState {
 public:
  explicit RequestState(std::shared_ptr<const Graph> g) : graph(std::move(g)) {}
  ~RequestState();
  // Runs the end hooks once.
  void End(bool aborted);

  const std::shared_ptr<const Graph> graph;
  std::mutex mutex;
  RequestContext context;
  const Parser* parser = nullptr;
  std::function<void(const Usage&)> on_end;    // tells flow control that there is room
  std::function<void(const Denial&)> evicted;  // of RequestInput
  HeaderList queue_headers;                    // how long it was queued, and why
  const Clock* clock = nullptr;
  std::optional<Logger> log;  // with x-request-id
  std::shared_ptr<const EndpointInfo> endpoint;
  const RequestSeries* series = nullptr;  // null until routed
  uint64_t ticket = 0;                    // in flow control
  bool ended = false, first_chunk = false, sse = false;
  bool body_skipped = false;  // the answer's body is not shown to us
  bool encoded = false;  // the answer is compressed: neither usage nor a name can be read in it
  int status = 0;
  size_t response_bytes = 0;
  TimePoint first_chunk_at{}, last_chunk_at{};
  Usage usage;
  std::optional<std::string> served;      // ResponseInfo::served
  std::vector<ReportedAttribute> report;  // filled at the end
  UsageScanner scanner;
  std::optional<ModelRestorer> restorer;
};

class DirectorImpl final : public Director {
 public:
  DirectorImpl(DirectorOptions options, std::shared_ptr<const Graph> graph,
               std::shared_ptr<Fetch> fetch, Logger logger, MetricsRegistry& metrics,
               const Clock& clock);
  ~DirectorImpl() override { Stop(); }
  Status Start();

  void Route(RequestInput input, std::function<void(Routing)> done) override;
  void Cancel(const std::shared_ptr<RequestState>& state) override;
  void OnServed(const std::shared_ptr<RequestState>& state, std::string_view endpoint) override;
  std::vector<ReportedAttribute> TakeReport(const std::shared_ptr<RequestState>& state) override;
  HeaderList OnResponseHeaders(const std::shared_ptr<RequestState>& state, int status,
                               const HeaderList& headers) override;
  bool OnResponseBody(const std::shared_ptr<RequestState>& state, std::string_view chunk, bool end,
                      std::string* replaced) override;
  void OnResponseBodySkipped(const std::shared_ptr<RequestState>& state) override;
  bool wants_response_body() const override { return graph_->wants_response_body; }
  bool ready() const override { return store_.synced() && store_.Members()->size() > 0; }
  std::vector<EndpointInfo> Endpoints() const override;
  std::vector<ServedModel> ServedModels() const override;
  StatusOr<std::string> Explain(std::string_view request_id) const override;
  void Stop() override;

 private:
  struct Question;  // a request on its way in: input, state, callback
  Status Read(Question& q);
  void Admit(std::shared_ptr<Question> q);
  void Decide(Question& q);
  // Refuses before a decision was begun; the record holds the cause only.
  void Deny(Question& q, int status, std::string message, std::string reason);
  // Refuses with what the decision came to.
  void Deny(Question& q, DecisionRecord& record, int status, std::string message,
            std::string reason);
  void Refuse(Question& q, int status, std::string message, std::string reason);
  void Describe(const Question& q, DecisionRecord& record) const;
  void Grant(Question& q, const Snapshot& snapshot, const ScheduleOutcome& outcome,
             DecisionRecord& record);
  void Keep(Question& q, DecisionRecord& record, Routing& routing);
  void Eligible(const Question& q, const Snapshot& snapshot, std::vector<uint32_t>& out) const;
  void Dispatched(const std::shared_ptr<Question>& q, const FlowResult& result);
  // What tells flow control of the request's end.
  std::function<void(const Usage&)> OnEnd(uint64_t ticket);
  void Evict(const std::shared_ptr<RequestState>& state);
  std::shared_ptr<const PoolPolicy> Policy() const;
  void Maintain();

  const DirectorOptions options_;
  const std::shared_ptr<const Graph> graph_;
  const std::shared_ptr<Fetch> fetch_;
  const Logger logger_;
  const Clock& clock_;
  const bool scraping_;  // without scraping there is nothing to grow stale
  EndpointStore store_;
  mutable std::mutex policy_mutex_;
  std::shared_ptr<const PoolPolicy> policy_;  // null = none known; guarded by policy_mutex_
  RequestMetrics metrics_;
  DecisionRing ring_;
  const uint64_t seed_;
  std::atomic<uint64_t> next_id_{1};
  mutable PoolMeter meter_;
  std::unique_ptr<FlowController> flow_;  // null with the gate off
  std::unique_ptr<Scraper> scraper_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread maintenance_;
};

}  // namespace llmd::sched
