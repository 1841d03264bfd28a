// The endpoint picker without its wire: bytes of a request in, an endpoint and the edits to make
// out. llmd-epp puts it behind Envoy's ext_proc, llmd-gateway calls it in process,
// tests drive it with a fake clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/clock.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/sched/data/fetch.h"
#include "llmd/sched/decision.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/request_context.h"
#include "llmd/status.h"

namespace llmd {
class Tracer;
}

namespace llmd::sched {

struct DirectorOptions {
  std::string config_yaml;  // "" = the built-in default (docs/config.md)
  std::string config_path;  // for messages, and the file that ReloadFile reads
  std::shared_ptr<const PluginRegistry> registry;  // null = BuiltinPlugins()
  bool watch_config = false;                       // reload when that file changes
  std::string pool_name = "epp";
  std::string pool_namespace = "default";
  Duration refresh_metrics_interval = std::chrono::milliseconds(50);
  Duration metrics_staleness = std::chrono::seconds(2);
  bool emit_endpoint_scores = false;
  bool disable_subset_filter = false;
  bool allow_experimental = true;
  size_t max_body_bytes = 100 << 20;
  // Decisions kept for Explain: this many, or as many as fit in so many bytes; 0 = none. One over
  // 100 endpoints by 5 scorers takes about 6 KB.
  size_t decision_ring = 4096, decision_ring_bytes = 8 << 20;
  // Answer the request header x-llm-d-explain with a response header x-llm-d-decision: its value
  // must be this; "" = never.
  std::string explain_token;
  bool attach_trace = true;  // fill Routing::trace; Explain works either way
  uint64_t seed = 0;         // of tie-breaks and of ids that nobody sent; 0 = random
  // No threads and no timers: neither discovery nor scraping nor watching files. Whoever drives it
  // says who is there (SetEndpoints, SetMetrics) and what time it is (the clock, then Tick).
  // Plugins may have threads all the same: predicted latency with a statePath saves its model in
  // one.
  bool manual = false;
  Tracer* tracer = nullptr;  // of sampled requests; outlives the director
  bool label_pool = false;   // name the pool in decisions: there are several
};

// What response hooks need; opaque. Must not outlive the Director. Dropping the last reference ends
// the request's accounting.
class RequestState;

struct Denial {
  int http_status = 0;
  std::string message;         // the body says "inference error: <Code> - <message>"
  std::string dropped_reason;  // x-llm-d-request-dropped-reason, or ""
  int retry_after_s = 0;       // 0 = no header
  HeaderList headers;          // more of them: how long the request was queued, and why
};

// The request as it stands when its body is complete. Views must hold until Route's callback has
// run.
struct RequestInput {
  // Lower-cased names, pseudo headers included, in wire order; null = none.
  const HeaderList* headers = nullptr;
  std::string_view body;
  bool has_body = true;             // false: ended with its headers (GET)
  std::vector<std::string> subset;  // subset hint; see has_subset
  bool has_subset = false;
  // Endpoints that are not to be considered, as of the tries before: handles of Routing. Those that
  // left since exclude nobody.
  std::span<const EndpointId> exclude;
  // Of a try after the first: when the client's request came, so that its TTLs and SLOs count from
  // then (epoch = now), and the model that the first was sent for (Routing::target_model, "" = to
  // be chosen).
  TimePoint first_received{};
  std::string first_target;
  // Instead of the priority of the objective that the headers name, e.g. that of the client's key.
  std::optional<int> priority;
  std::string pool;  // which pool is to answer, where there are several; "" = by the request
  // When given, *state is set before Route returns or queues, so that a request still waiting can
  // be cancelled.
  std::shared_ptr<RequestState>* state = nullptr;
  // Called at most once, from any thread, when flow control takes the request back after it was
  // routed (enableEviction): answer the client with the denial, its message as the whole body;
  // break off an answer under way; then Cancel. Without it the request is never taken back.
  std::function<void(const Denial&)> evicted = nullptr;
  // The caller speaks no HTTP: of the Routing `endpoints`, body edits, scores and all headers but
  // the plugins' stay empty, and nothing is allocated for them.
  bool handles_only = false;
};

// Replace [begin, end) of the original body by `text`; edits are sorted and disjoint.
struct BodyEdit {
  size_t begin = 0, end = 0;
  std::string text;
};

struct Routing {
  bool ok = false;
  Denial denial;                       // when !ok
  std::vector<EndpointId> handles;     // best first; the others are fallbacks
  EndpointId prefill{};                // handle of the endpoint that prefills; 0 = none
  int port = 0;                        // to use instead of the endpoints' own; 0 = theirs
  std::vector<std::string> endpoints;  // "ip:port" of `handles`
  HeaderList
      set_headers;  // besides the destination: x-prefiller-host-port, traceparent, x-request-id …
  std::vector<std::string> remove_headers;
  std::vector<BodyEdit> body_edits;
  std::vector<std::pair<std::string, double>> scores;  // with emit_endpoint_scores
  std::string request_id;
  std::string target_model;                    // that the request is sent for
  bool skip_response = false;                  // the answer need not be shown to the hooks
  std::shared_ptr<RequestState> state;         // pass to the response hooks
  bool reads_response = false;                 // a plugin, or edits_response, needs OnResponseBody
  bool edits_response = false;                 // OnResponseBody may change the answer's length
  std::shared_ptr<const DecisionTrace> trace;  // with attach_trace
  // Empties it for the next request and keeps the buffers.
  void Clear();
};

// A member of a director's pool.
struct EndpointHandle {
  std::string name;  // "ns/name"
  EndpointId id{};
};

// Thread-safe: Route and the hooks may be called from any thread.
class Director {
 public:
  // Loads and builds the plugin graph, starts discovery and scraping. Every configuration error at
  // once, with line and path.
  static StatusOr<std::unique_ptr<Director>> Create(DirectorOptions options,
                                                    std::shared_ptr<Fetch> fetch, Logger logger,
                                                    MetricsRegistry& metrics, const Clock& clock);
  virtual ~Director() = default;

  // Decides. `done` runs once: in this call, or later, from any thread, when the request had to
  // queue or its producers to wait. It may drop, cancel and route requests, this one too. It must
  // not reload, stop or destroy the director, nor wait for a thread that does: within it (and
  // within RequestInput::evicted) Reload and ReloadFile are FAILED_PRECONDITION and Stop does
  // nothing. It should not throw: what it throws, and what `evicted` throws, is logged and goes no
  // further.
  virtual void Route(RequestInput input, std::function<void(Routing)> done) = 0;
  // Decides in this call where it can: true, `routing` is the answer and `later` is never called.
  // False when the request queues or its producers wait: the answer comes through `later`, once,
  // perhaps before this returns. With `handles_only`, a `routing` that is used again and prompts
  // already seen nothing is allocated.
  virtual bool RouteNow(RequestInput input, Routing& routing, std::function<void(Routing)> later) {
    Route(std::move(input), std::move(later));
    return false;
  }
  // The client left: at any time, from any thread, within callbacks too. A request that was not
  // routed yet is refused, with 503: at once while it queues, when its producers are done, or their
  // time is over, while they run; one that was routed ends. Idempotent.
  virtual void Cancel(const std::shared_ptr<RequestState>& state) = 0;

  // Response hooks, in order; each may be left out when a connection dies (Cancel then).
  // Before OnResponseHeaders, when the proxy sent metadata with them: the "ip:port" that answered,
  // "" = it did not say. Where it is another endpoint of the decision than the first, the request
  // is counted there from now on.
  virtual void OnServed(const std::shared_ptr<RequestState>& state, std::string_view endpoint) {}
  // Returns headers to set on the response.
  virtual HeaderList OnResponseHeaders(const std::shared_ptr<RequestState>& state, int status,
                                       const HeaderList& headers) = 0;
  // A piece of the response as it passes; `end` with the last. Returns true when `chunk` must be
  // replaced by *replaced (model name restored); `replaced` is never null. A compressed answer is
  // neither read nor changed.
  virtual bool OnResponseBody(const std::shared_ptr<RequestState>& state, std::string_view chunk,
                              bool end, std::string* replaced) = 0;
  // After the last OnResponseBody: what plugins tell the proxy. Once.
  virtual std::vector<ReportedAttribute> TakeReport(const std::shared_ptr<RequestState>& state) {
    return {};
  }
  // After OnResponseHeaders: the body of this answer will not be shown. First-chunk hooks run now;
  // sizes, chunk times and tokens are not recorded. The end is still told, by OnResponseBody with
  // an empty last chunk.
  virtual void OnResponseBodySkipped(const std::shared_ptr<RequestState>&) {}
  // False when no configured plugin reads response bodies, so that the phase may be skipped.
  virtual bool wants_response_body() const = 0;

  // Discovery has told its endpoints once, be there none: requests are answered or queued.
  virtual bool ready() const = 0;
  virtual std::vector<EndpointInfo> Endpoints() const = 0;
  // The same by name and handle; a handle is new each time one comes.
  virtual std::vector<EndpointHandle> Members() const { return {}; }
  // The models of all endpoints, each once, in the order of their names; empty when no
  // models-data-source is configured or none has answered.
  virtual std::vector<ServedModel> ServedModels() const { return {}; }
  // The decisions under a request id as JSON, one for each try (decision_tries.h); NOT_FOUND once
  // they left the ring.
  virtual StatusOr<std::string> Explain(std::string_view request_id) const = 0;
  // The last decisions, newest first, at most `limit`: one JSON object each (decision.h, Summary).
  virtual json::Value Decisions(size_t limit) const { return json::Array(); }
  // By name: type, and what the plugin shows of its state.
  virtual json::Value PluginState() const { return {}; }
  // Does what is due by the passing of time: TTLs, gates that opened, producers that wait. Returns
  // when it wants to be called next unless something else happens before; max = not by time. `now`
  // is what the clock says. A director that is not manual does this by itself.
  virtual TimePoint Tick(TimePoint now) { return TimePoint::max(); }
  // NOLINTBEGIN(performance-unnecessary-value-param): the directors that can do it keep what is
  // given Replaces the members, as discovery would; for a manual director. INVALID_ARGUMENT, and
  // nothing changes, when two of them have the same ns/name, address and port.
  virtual Status SetEndpoints(std::vector<EndpointInfo> endpoints) {
    return Unimplemented("endpoints cannot be given to this director");
  }
  // New metrics of the member of that "ns/name" or handle, stamped with now when `updated` is not
  // set; seen by the next request and the next Tick. Each call is a page of its own: it shows what
  // was sent before. NOT_FOUND when it is not there.
  virtual Status SetMetrics(std::string_view name, EndpointMetrics metrics) {
    return Unimplemented("metrics cannot be given to this director");
  }
  virtual Status SetMetrics(EndpointId id, EndpointMetrics metrics) {
    return Unimplemented("metrics cannot be given to this director");
  }
  // NOLINTEND(performance-unnecessary-value-param)
  // Goes over to another configuration. An error, with every fault of it, leaves all as it was.
  // Requests on their way to an engine end under the configuration that routed them; queued ones
  // keep their place and are routed by the new one. Plugins of equal name, type and parameters keep
  // their state, counts of requests in flight survive in any case. FAILED_PRECONDITION after Stop,
  // and within the callback of a request.
  virtual Status Reload(std::string_view config_yaml) {
    return Unimplemented("this director cannot be reloaded");
  }
  // The same with what options.config_path holds now.
  virtual Status ReloadFile() { return Unimplemented("this director cannot be reloaded"); }
  // Refuses what waits, in queues and in producers, and ends all threads; callbacks run in it.
  // Idempotent: further callers wait until the first is done. Within a callback it does nothing but
  // log an error: it would wait for itself.
  virtual void Stop() = 0;
};

}  // namespace llmd::sched
