// One request from its arrival to the end of its answer: all that is known of it, in one object.
//
// Owner: on its way in the request keeps itself (`kept`) until its callback has been called; then
// whoever holds Routing::state. When the last holder lets go it ends, and goes back to its pool.
//
// Locks: `mutex_` guards the phase, the turn and what Cancel may touch, for a few loads and stores;
// nothing is called and nothing of others' is destroyed under it. All else belongs to whoever works
// on the request: until it is routed the thread that brings it on, afterwards whoever has the turn.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "config/graph.h"
#include "director/request_metrics.h"
#include "director/response_scan.h"
#include "flow/controller.h"
#include "life/phase.h"
#include "llmd/sched/director.h"
#include "llmd/tracing.h"
#include "pass/plugin_guard.h"

namespace llmd::sched {

// Where a request for the endpoint is sent; port 0 = its own.
inline std::string AddressOf(const EndpointInfo& endpoint, uint16_t port) {
  if (port == 0) return endpoint.HostPort();
  EndpointInfo there;
  there.address = endpoint.address;
  there.port = port;
  return there.HostPort();
}

// What one configuration is turned into. Immutable; a request uses one from its arrival to its
// dispatch.
struct Setup {
  std::shared_ptr<const Graph> graph;
  std::shared_ptr<PoolMeter> meter;      // of the graph's detector
  std::shared_ptr<FlowController> flow;  // null with the gate off
};

// Where the answer of a request goes that may be had in the call (Director::RouteNow).
struct InCall {
  Routing* routing = nullptr;
  std::thread::id thread;
  bool answered = false;
};

class RequestState {
 public:
  RequestState() = default;
  RequestState(const RequestState&) = delete;
  RequestState& operator=(const RequestState&) = delete;

  // Takes a step of the table; false where it cannot be taken, and for kRoute also when the request
  // was cancelled.
  bool Take(Step step);
  // It is to be refused. False when it was routed before or has ended: End does it then.
  bool Cancel();
  bool cancelled() const;
  // Runs the end hooks, once, and gives back its place. When somebody has the turn it is done when
  // the turn is over.
  void End(bool aborted);
  // What to call when it is taken back; null when it has none, was told before or has ended.
  std::function<void(const Denial&)> TakeEvicted();
  // The caller's routing when the answer can still be had in its call, which this is; else `own`.
  Routing& Target(Routing& own);
  // The answer stands in `routing`: tells whoever asked. Once, as the last step on the way in.
  void Answer(Routing& routing);
  void SetInCall(InCall* in_call);
  // Empties it for the next request and keeps the buffers.
  void Clear();

  // Shows a hook the answer, each one whatever the others do. With the turn.
  template <typename Call>
  void ForHooks(const Call& call) {
    for (ResponseHook* hook : graph->response)
      failures->Run(*hook, context.request_id, [&] { call(*hook); });
  }
  // What hooks are told, without headers and usage. With the turn.
  ResponseInfo Info() const;
  // The proxy says who answered. With the turn.
  void Served(std::string_view by);
  // Of a piece of the answer's body. With the turn.
  void ReadUsage(std::string_view chunk);
  // Closes the trace of a sampled request and hands it to the exporter.
  void EndSpans(int http_status, const std::string& error);
  // With x-request-id; `fields` are made by the caller: ask Logs first.
  bool Logs(LogLevel level) const { return logger->Enabled(level); }
  Logger Log() const { return logger->With("x-request-id", context.request_id); }

  // On its way in.
  RequestInput input;
  std::function<void(Routing)> done;
  std::shared_ptr<RequestState> kept;        // itself
  std::shared_ptr<const Setup> setup;        // of its arrival, then of its dispatch
  TraceContext trace;                        // of the span of the whole request
  std::string rewrite;                       // the model to send, "" = the client's
  Duration ttl{};                            // the client's own, in the queue
  FlowController* flow = nullptr;            // where it queued; lives as the director
  uint64_t dispatched = 0;                   // its ticket, once flow control has let it through
  std::atomic<uint64_t> ticket{0};           // while it queues
  std::shared_ptr<const Snapshot> snapshot;  // what the producers saw; null = they run with Decide
  bool again = false;  // its producers ran twice, since all its endpoints had left
  bool lent = false;   // a producer may still work on the context; lives as long as it
  std::function<void(const Denial&)> evicted;  // of RequestInput; guarded by mutex_ once routed
  bool revocable = false;                      // it had one

  // For all its life.
  Director* director = nullptr;
  const Clock* clock = nullptr;
  const Logger* logger = nullptr;             // lives as the director
  PluginFailures* failures = nullptr;         // lives as the director
  std::shared_ptr<const Graph> graph;         // by which it is decided; not changed once routed
  std::shared_ptr<const Graph> parsed_under;  // keeps `parser` alive
  RequestContext context;
  const Parser* parser = nullptr;
  HeaderList queue_headers;         // how long it was queued, and why
  std::optional<Logger> debug_log;  // that context.log points to
  std::unique_ptr<SpanLog> spans;   // of a sampled request
  Tracer* tracer = nullptr;
  std::string decision_header;  // for the answer; "" = not asked for

  // Once it is routed.
  struct Other {
    std::shared_ptr<const EndpointInfo> info;
    std::shared_ptr<const EndpointLife> life;
  };
  std::shared_ptr<const EndpointInfo> endpoint;
  uint16_t port = 0;                             // sent there instead of its own; 0 = its own
  std::vector<Other> others;                     // fallbacks of the decision
  std::shared_ptr<const EndpointInfo> fallback;  // the one of them that answered, if so
  const RequestSeries* series = nullptr;
  Histogram* responding = nullptr;
  bool first_chunk = false, sse = false;
  bool body_skipped = false;  // the answer's body is not shown to us
  bool encoded = false;  // the answer is compressed: neither usage nor a name can be read in it
  int status = 0;
  size_t response_bytes = 0;
  Duration response_work{};  // spent in the response hooks
  TimePoint first_chunk_at{}, last_chunk_at{};
  Usage usage;
  std::optional<std::string> served;      // ResponseInfo::served
  std::vector<ReportedAttribute> report;  // filled at the end
  UsageScanner scanner;
  std::unique_ptr<ResponseReader> reader;  // instead of the scanner
  std::optional<ModelRestorer> restorer;

 private:
  friend class Turn;
  // The end hooks and figures. With the turn.
  void Finish(bool aborted);
  void ObserveEnd() const;

  mutable std::mutex mutex_;
  std::condition_variable turn_free_;
  Phase phase_ = Phase::kReceived;  // guarded by mutex_
  bool cancelled_ = false;          // before it was routed; guarded by mutex_
  std::thread::id turn_;            // who has it, none = nobody; guarded by mutex_
  bool end_asked_ = false;          // of whoever has the turn; guarded by mutex_
  InCall* in_call_ = nullptr;       // guarded by mutex_
};

// The right to work on a routed request. Waits for whoever has it, but never within a turn of the
// same thread: a hook that comes back finds nothing to do.
class Turn {
 public:
  explicit Turn(RequestState& state);
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  // It is this one's, and the request was routed and has not ended.
  explicit operator bool() const { return held_ && routed_; }

 private:
  RequestState& state_;
  bool held_ = false, routed_ = false;
};

}  // namespace llmd::sched
