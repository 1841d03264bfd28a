// A request on its way in, until it is answered.
#pragma once

#include "director/impl.h"

namespace llmd::sched {

struct DirectorImpl::Question {
  RequestInput input;
  std::function<void(Routing)> done;
  std::shared_ptr<RequestState> state;
  std::shared_ptr<const Setup> setup;        // of its arrival, then of its dispatch
  TraceContext trace;                        // of the span of the whole request
  std::string rewrite;                       // the model to send, "" = the client's
  Duration ttl{};                            // the client's own, in the queue
  FlowController* flow = nullptr;            // where it queued; lives as the director
  uint64_t dispatched = 0;                   // its ticket, once flow control has let it through
  std::shared_ptr<const Snapshot> snapshot;  // what the producers saw; null = they run with Decide
  bool again = false;  // its producers ran twice, since all its endpoints had left
  RequestContext& context() const { return state->context; }
  // The answer when the Director is gone.
  void ShutDown() const {
    Routing routing;
    routing.request_id = context().request_id;
    routing.denial = {503, "shutting down", "rejected-shutting-down", 1};
    done(std::move(routing));
  }
};

}  // namespace llmd::sched
