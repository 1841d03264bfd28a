// The scheduler by value, for experiments: the same plugin graph as in the services, without
// threads, sockets or clocks of its own. The same YAML, seed and calls give the same decisions.
// Needs llmd::core and llmd::kv only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/log.h"
#include "llmd/sched/decision.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/parser.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/request_context.h"
#include "llmd/status.h"

namespace llmd::sched {

struct DecisionRecord;  // every filter, score and total of one decision, not yet in words

// What is kept of how a decision came about. Building the trace over 100 endpoints costs several
// times the decision.
enum class Recording {
  kNone,    // the outcome only
  kRecord,  // Decision::Trace() builds the trace when asked
  kTrace,   // Decision::trace is filled
};

// A request to place. `body` wins over `model` + `prompt`, which stand for a completions body.
struct RequestSpec {
  std::string model, prompt;
  std::string body;  // OpenAI JSON
  // What follows '?' is ignored. "" = by the body: `messages` → /v1/chat/completions, `prompt` →
  // /v1/completions, `input` → /v1/responses where a member of that API stands beside it or the
  // input is a list of objects, else /v1/embeddings.
  std::string path;
  HeaderList headers;      // lower-case names
  std::string request_id;  // made when empty
  int priority = 0;
  bool keep_in_flight = false;  // count it on its endpoints until Finish(decision.id)
  Recording recording = Recording::kTrace;
};

struct ScoredEndpoint {
  std::string endpoint, address;  // "ns/name", "ip:port"
  double total = 0;
  uint32_t index = 0;  // among the endpoints given
};

struct Decision {
  bool ok = false;
  int denied_status = 0;  // HTTP status when !ok
  std::string denied_reason;
  std::vector<ScoredEndpoint> picked;  // best first; the others are fallbacks
  std::string prefill;                 // "ns/name" of the prefill endpoint, "" = none
  int prefill_index = -1;              // among the endpoints given; -1 = none
  std::string decision_type;
  HeaderList set_headers;
  uint64_t id = 0;
  DecisionTrace trace;  // with Recording::kTrace: every filter, score, weight and total
  std::shared_ptr<const DecisionRecord> record;  // with Recording::kRecord; immutable
  // `trace`, or what `record` says; empty with Recording::kNone.
  DecisionTrace Trace() const;
};

// The end of an answer.
struct AnswerEnd {
  Usage usage;
  bool aborted = false;  // it did not end by itself
  int status = 200;      // HTTP status
};

struct SchedulerOptions {
  uint64_t seed = 1;  // of tie-breaks
  const Clock* clock =
      nullptr;  // null = a clock that stands still: ages are 0 and runs repeat exactly
  bool allow_experimental = true;
  const PluginRegistry* registry = nullptr;  // null = BuiltinPlugins(); read by FromYaml only
  Logger logger = {};                        // of plugins
};

// Endpoints made ready once and then kept up to date, for callers that decide often. Belongs to the
// scheduler that prepared it and must not outlive it. Thread-compatible: no call of Schedule with
// it may run while it is changed.
class PreparedSet {
 public:
  virtual ~PreparedSet() = default;
  virtual size_t size() const = 0;
  virtual const EndpointInfo& info(size_t i) const = 0;
  virtual const EndpointMetrics& metrics(size_t i) const = 0;
  // Index of "ns/name", or -1.
  virtual int Find(std::string_view full_name) const = 0;
  // New gauges of endpoint i; NaN = unknown. The rest of its metrics stays.
  virtual void SetGauges(size_t i, double waiting, double running, double kv_usage) = 0;
  // Everything it said of itself. `attributes` as in EndpointState: INVALID_ARGUMENT, with nothing
  // changed, for one that no extractor of the configuration fills.
  virtual Status SetMetrics(size_t i, const EndpointMetrics& metrics,
                            const std::map<std::string, double>& attributes = {}) = 0;
};

// Thread-safe, but only calls in a fixed order repeat exactly.
class Scheduler {
 public:
  // `yaml` "" = the built-in default. Discovery, sources and flow control of the configuration are
  // checked, not run.
  static StatusOr<std::unique_ptr<Scheduler>> FromYaml(std::string_view yaml,
                                                       SchedulerOptions options = {});
  virtual ~Scheduler() = default;

  // Endpoints are known by ns/name: state a plugin keeps per endpoint (prefix index, in-flight
  // counts) follows the name, not the position. INVALID_ARGUMENT when two share a name.
  virtual StatusOr<std::unique_ptr<PreparedSet>> Prepare(
      std::span<const EndpointState> endpoints) = 0;
  // INVALID_ARGUMENT when the body cannot be parsed, no parser is for the path (the fallback that a
  // configuration without parsers gets does not count), or the set is another scheduler's;
  // INTERNAL, with nothing counted, when a filter, scorer or picker throws.
  virtual StatusOr<Decision> Schedule(const RequestSpec& request, const PreparedSet& set) = 0;
  // Prepare and Schedule in one. Cheaper while the endpoints of one call are those of the last and
  // only their metrics differ.
  virtual StatusOr<Decision> Schedule(const RequestSpec& request,
                                      std::span<const EndpointState> endpoints) = 0;

  // The answer of a request that was kept in flight has begun: runs the response hooks for its
  // headers and first chunk. Returns headers to set on the answer. Unknown ids, and a second call,
  // do nothing. An error is the first hook's that threw.
  virtual StatusOr<HeaderList> FirstToken(uint64_t decision_id) = 0;
  // Ends a request that was kept in flight. Unknown ids are ignored. An error is the first hook's
  // that threw; the request has ended all the same.
  virtual Status End(uint64_t decision_id, const AnswerEnd& end) = 0;
  void Finish(uint64_t decision_id) { static_cast<void>(End(decision_id, {})); }
  // What the loader completed or doubts.
  virtual std::vector<std::string> Warnings() const = 0;
};

}  // namespace llmd::sched
