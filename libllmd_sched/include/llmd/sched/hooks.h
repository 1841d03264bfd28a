// Hooks see a request after scheduling and its answer as it passes. Called one at a time per
// request, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/parser.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/profile_handler.h"

namespace llmd::sched {

// Runs on every request before it is queued, when fairness_id holds what the client wrote ("" =
// nothing).
class RequestHeaderHook : public virtual Plugin {
 public:
  virtual void OnRequestHeaders(RequestContext& request) = 0;
};

// Runs once the endpoints are chosen, before the request leaves.
class PreRequestHook : public virtual Plugin {
 public:
  // May append to `set_headers` (for the model server).
  virtual void PreRequest(RequestContext& request, const Snapshot& snapshot,
                          const ScheduleOutcome& outcome, HeaderList& set_headers) = 0;
};

// A number for the proxy beside the end of an answer (dynamic metadata).
struct ReportedAttribute {
  std::string metadata_namespace, name;
  int64_t value = 0;
};

struct ResponseInfo {
  int status = 0;
  const HeaderList* headers = nullptr;
  const EndpointInfo* endpoint = nullptr;  // the primary one
  // Another one of the decision's that answered in its place, as the proxy says; null = none did.
  const EndpointInfo* fallback = nullptr;
  // "ip:port" that answered as the proxy says; "" = it did not say, null = it sent no metadata.
  const std::string* served = nullptr;
  Usage usage;           // at the end
  bool aborted = false;  // the answer did not end by itself
  // Who answered, as far as is known.
  const EndpointInfo* answering() const { return fallback != nullptr ? fallback : endpoint; }
};

class ResponseHook : public virtual Plugin {
 public:
  // May append to `set_headers` (for the client).
  virtual void OnHeaders(RequestContext& request, const ResponseInfo& response,
                         HeaderList& set_headers) {}
  virtual void OnFirstChunk(RequestContext& request, const ResponseInfo& response) {}
  // Exactly once per routed request, also when it was cancelled.
  virtual void OnEnd(RequestContext& request, const ResponseInfo& response) {}
  // After OnEnd of an answer that ended by itself: may append what the proxy shall be told.
  virtual void Report(const RequestContext& request, const ResponseInfo& response,
                      std::vector<ReportedAttribute>& report) {}
  // False when bodies may be skipped as far as this hook goes.
  virtual bool wants_body() const { return false; }
};

// State that outlives a change of the plugin's parameters (a plugin whose parameters are the same
// is kept as it is).
class Successor : public virtual Plugin {
 public:
  // Called once on a reload, before the first request: `old` is the plugin of this name and type
  // that this one replaces, or the only one of its type. The old one still ends the requests it
  // began, so that what both change must be shared.
  virtual void Inherit(Plugin& old) = 0;
};

// A plugin that shows what it knows (GET /debug/plugins/state).
class Introspected : public virtual Plugin {
 public:
  // A short summary; `endpoints` are the pool's of now, with their slots. From any thread.
  virtual json::Value State(const EndpointSet& endpoints) const = 0;
};

// Told when an endpoint has left, or another process has taken its address. Requests under way may
// still write under its slot.
class EndpointObserver : public virtual Plugin {
 public:
  virtual void OnEndpointGone(const EndpointInfo& endpoint, uint32_t slot) = 0;
  // Nobody holds a life with that slot any more, and another endpoint may get it next: what was
  // written under it since OnEndpointGone has to go too.
  virtual void OnSlotFree(uint32_t slot) {}
};

}  // namespace llmd::sched
