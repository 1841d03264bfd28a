// What the gateway's policies have in common, whoever decides: the request's id, the routes and the
// gateway's own pages, refusals, probes of endpoints that are out, the access log and the counts.
// One policy a loop.
#pragma once

#include <string>
#include <string_view>

#include "gateway/gateway_metrics.h"
#include "gateway/routes.h"
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
  const Logger logger;
  const bool access_log = true;  // a line for each request
};

class PolicyBase : public relay::Policy {
 public:
  using Key = relay::UpstreamHealth::Key;
  // Of each call, in its context.
  struct Request {
    std::string id, method, path;
    std::string endpoint;             // "ip:port" that answers; "" = none yet
    std::string client_subject;       // of its certificate; "" = none
    const LocalPage* page = nullptr;  // to be written elsewhere
    Key probe = 0;                    // of a call of our own: whom it asks

   protected:
    ~Request() = default;
  };

  PolicyBase(const PolicyParts& parts, relay::Loop& loop) : parts_(parts), loop_(loop) {}

  void OnHead(relay::Call& call) final;
  void OnRequest(relay::Call& call) final;
  void OnRefused(relay::Call& call, const relay::Refusal& refusal) final;
  void OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) final;
  void OnCollected(relay::Call& call, const http::ResponseView& head, std::string_view body) final;
  std::string_view OnCut(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnEnd(relay::Call& call, const relay::Outcome& outcome) final;
  void OnTick() override;

  // Ends the call with an error object.
  void Answer(relay::Call& call, int status, std::string_view message, std::string_view allow = {});
  // Ids are logged up to 128 bytes.
  static std::string_view LoggedId(const Request& request);
  const PolicyParts& parts() const { return parts_; }

 protected:
  static Request& Of(relay::Call& call) { return *static_cast<Request*>(call.context); }
  // A state for one more call, and back.
  virtual Request& Take() = 0;
  virtual void Give(Request& request) = 0;
  // The request is whole and for a model server.
  virtual void Serve(relay::Call& call, Request& request) = 0;
  virtual void LegFailed(relay::Call& call, Request& request, relay::Failure failure,
                         std::string_view what) = 0;
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
  void Log(const Logger& logger, const Request& request, const relay::Outcome& outcome) const;

  const PolicyParts& parts_;
  relay::Loop& loop_;
};

}  // namespace llmd::gateway
