// What the gateway's policies have in common, whoever decides: the request's id, the routes and the
// gateway's own pages, refusals, probes of endpoints that are out, the access log and the counts.
// One policy a loop.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/request_observer.h"
#include "gateway/gateway_metrics.h"
#include "gateway/kept_answer.h"
#include "gateway/routes.h"
#include "gateway/timeouts.h"
#include "gateway/tries.h"
#include "llmd/http/relay/policy.h"
#include "llmd/http/relay/upstream_health.h"
#include "llmd/log.h"
#include "llmd/worker_pool.h"

namespace llmd::gateway {

// What the policies of all loops share; thread-safe, and outlives them.
struct PolicyParts {
  const Routes& routes;
  GatewayMetrics& metrics;
  relay::UpstreamHealth& health;
  WorkerPool& workers;  // for what takes long: pages, large bodies
  const TimeoutTable timeouts;
  const TryLimits tries;
  const uint64_t seed;  // of back-offs
  const Logger logger;
  const services::ObserverParts observed;
};

class PolicyBase : public relay::Policy {
 public:
  using Key = relay::UpstreamHealth::Key;
  // Of each call, in its context.
  struct Request {
    std::string id, method, path;
    std::string endpoint;             // "ip:port" that answers; "" = none yet
    const LocalPage* page = nullptr;  // to be written elsewhere
    Key probe = 0;                    // of a call of our own: whom it asks
    bool anthropic = false;           // its client expects errors in Anthropic's form
    const Timeouts* timeouts = nullptr;
    Tries tries;
    KeptAnswer kept;    // the last one that was set aside
    Verdict set_aside;  // and what it said
    services::RequestRecord record;

   protected:
    ~Request() = default;
  };

  PolicyBase(const PolicyParts& parts, relay::Loop& loop)
      : parts_(parts),
        loop_(loop),
        backoff_(parts.seed + static_cast<uint64_t>(loop.index())),
        observer_(parts.observed, loop.index()) {}

  void OnHead(relay::Call& call) final;
  void OnRequest(relay::Call& call) final;
  void OnRefused(relay::Call& call, const relay::Refusal& refusal) final;
  void OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) final;
  void OnCollected(relay::Call& call, const http::ResponseView& head, std::string_view body) final;
  std::string_view OnCut(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnEnd(relay::Call& call, const relay::Outcome& outcome) final;
  void OnTick() override;

  // An error object in the form that the request's client reads.
  static std::string ErrorOf(const Request& request, int status, std::string_view message);
  // Ends the call with an error object.
  void Answer(relay::Call& call, int status, std::string_view message, std::string_view allow = {});
  static constexpr std::string_view kTimeIsOver = "the request's time is over";
  // Ids are logged up to 128 bytes.
  static std::string_view LoggedId(const Request& request);
  const PolicyParts& parts() const { return parts_; }
  // How long until a request that every endpoint has failed may be tried again, or nothing.
  std::optional<Duration> AgainIn(const relay::Call& call, Request& request);
  // Of a leg of the request: the time limits of its path.
  static void Limit(const relay::Call& call, const Request& request, relay::SendOptions* leg);
  // In OnResponseHead: holds the answer for or against the endpoint. True when the request may do
  // better elsewhere: then the answer is collected and kept, and SetAside follows.
  bool Betters(relay::Call& call, Request& request, const http::ResponseView& head);
  services::RequestObserver& observer() { return observer_; }

 protected:
  int loop_index() const { return loop_.index(); }
  relay::Loop& loop() const { return loop_; }
  static Request& Of(relay::Call& call) { return *static_cast<Request*>(call.context); }
  // A state for one more call, and back.
  virtual Request& Take() = 0;
  virtual void Give(Request& request) = 0;
  // The request is whole and for a model server.
  virtual void Serve(relay::Call& call, Request& request) = 0;
  virtual void LegFailed(relay::Call& call, Request& request, relay::Failure failure,
                         std::string_view what) = 0;
  // The answer of the endpoint that was asked last is kept: the request is tried elsewhere, or ends
  // with it.
  virtual void SetAside(relay::Call& call, Request& request) = 0;
  // Holds a failure against the endpoint that was asked last, and logs it. `sure`: it is gone.
  void Blame(Request& request, relay::Failure failure, std::string_view what, bool sure = false);
  // The call is over; Give follows, unless this says false: then the call is retained, and the
  // policy gives the request when it lets it go.
  virtual bool Ended(relay::Call& call, Request& request, const relay::Outcome& outcome) = 0;
  // Who answers, for health.
  virtual Key Answering(const Request& request, relay::Target* target) const = 0;

 private:
  Request& Begin(relay::Call& call);
  bool AnswerHere(relay::Call& call, const LocalPage& page);
  void AnswerLater(relay::Call& call, const LocalPage& page);
  void AnswerWith(relay::Call& call, const http::Response& response);

  const PolicyParts& parts_;
  relay::Loop& loop_;
  Backoff backoff_;
  services::RequestObserver observer_;
};

}  // namespace llmd::gateway
