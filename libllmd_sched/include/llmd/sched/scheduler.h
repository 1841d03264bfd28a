// The scheduler by value, for experiments: the same plugin graph as in the services, without
// threads, sockets or clocks of its own. The same YAML, seed and calls give the same decisions.
// Needs llmd::core and llmd::kv only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/sched/decision.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/request_context.h"
#include "llmd/status.h"

namespace llmd::sched {

// A request to place. `body` wins over `model` + `prompt`, which stand for a completions body.
struct RequestSpec {
  std::string model, prompt;
  std::string body;  // OpenAI JSON
  std::string path = "/v1/completions";
  HeaderList headers;      // lower-case names
  std::string request_id;  // made when empty
  int priority = 0;
  bool keep_in_flight = false;  // count it on its endpoints until Finish(decision.id)
};

struct ScoredEndpoint {
  std::string endpoint, address;  // "ns/name", "ip:port"
  double total = 0;
};

struct Decision {
  bool ok = false;
  int denied_status = 0;  // HTTP status when !ok
  std::string denied_reason;
  std::vector<ScoredEndpoint> picked;  // best first; the others are fallbacks
  std::string prefill;                 // "ns/name" of the prefill endpoint, "" = none
  std::string decision_type;
  HeaderList set_headers;
  uint64_t id = 0;
  DecisionTrace trace;  // every filter, score, weight and total
};

struct SchedulerOptions {
  uint64_t seed = 1;  // of tie-breaks
  const Clock* clock =
      nullptr;  // null = a clock that stands still: ages are 0 and runs repeat exactly
  bool allow_experimental = true;
  const PluginRegistry* registry = nullptr;  // null = BuiltinPlugins(); read by FromYaml only
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
  // counts) follows the name, not the position. INVALID_ARGUMENT when the body cannot be parsed or
  // two endpoints share a name; INTERNAL, with nothing counted, when a filter, scorer or picker
  // throws.
  virtual StatusOr<Decision> Schedule(const RequestSpec& request,
                                      std::span<const EndpointState> endpoints) = 0;
  // Ends a request that was kept in flight. Unknown ids are ignored.
  virtual void Finish(uint64_t decision_id) = 0;
  // What the loader completed or doubts.
  virtual std::vector<std::string> Warnings() const = 0;
};

}  // namespace llmd::sched
