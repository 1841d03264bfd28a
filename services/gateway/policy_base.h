// What the gateway's policies have in common, whoever decides: the request's id, the doors, the
// gateway's own pages, refusals, probes of endpoints that are out, lists of models, the access log
// and the counts. One policy a loop.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/request_observer.h"
#include "gateway/door_keeper.h"
#include "gateway/gateway_metrics.h"
#include "gateway/kept_answer.h"
#include "gateway/model_reader.h"
#include "gateway/pages.h"
#include "gateway/timeouts.h"
#include "gateway/tries.h"
#include "llmd/http/relay/policy.h"
#include "llmd/http/relay/upstream_health.h"
#include "llmd/log.h"
#include "llmd/worker_pool.h"

namespace llmd::gateway {

// What the policies of all loops share; thread-safe, and outlives them.
struct PolicyParts {
  const std::vector<LocalPage>& pages;
  doors::Doors& doors;
  ModelReader& models;
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
    std::string endpoint;  // "ip:port" that answers; "" = none yet
    bool blamed = false;   // an endpoint failed it, and that was held against the endpoint
    bool passed = false;   // an endpoint has answered it
    // At the doors; null when they were not asked, and once nothing of it is needed any more.
    DoorKeeper::Visit* visit = nullptr;
    bool answered = false;            // an engine's answer has begun
    bool reading = false;             // the body is read on another thread
    bool left = false;                // meanwhile the call has ended
    bool models_page = false;         // to be written elsewhere
    const LocalPage* page = nullptr;  // the same
    // Of a call of our own: whom it asks, for its health or for its models.
    Key probe = 0;
    doors::EngineName models_of;
    bool anthropic = false;  // its client expects errors in Anthropic's form
    const Timeouts* timeouts = nullptr;
    Tries tries;
    KeptAnswer kept;    // the last one that was set aside
    Verdict set_aside;  // and what it said
    services::RequestRecord record;

   protected:
    ~Request() = default;
  };

  PolicyBase(const PolicyParts& parts, relay::Loop& loop);

  bool OnConnect(relay::Connection& connection, relay::Refusal& refusal) final {
    return keeper_.OnConnect(connection, refusal);
  }
  void OnDisconnect(relay::Connection& connection) final { keeper_.OnDisconnect(connection); }
  bool OnTake(relay::Connection& connection, relay::Held what, size_t bytes,
              relay::Refusal& refusal) final {
    return keeper_.OnTake(connection, what, bytes, refusal);
  }
  void OnGiveBack(relay::Connection& connection, relay::Held what, size_t bytes) final {
    keeper_.OnGiveBack(connection, what, bytes);
  }
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
  // Ends the call with an error object; without a message with no body.
  void Answer(relay::Call& call, int status, std::string_view message);
  static constexpr std::string_view kTimeIsOver = "the request's time is over";
  // The client's head as the doors leave it: what decides about the request reads this one.
  static const http::RequestView& HeadOf(const relay::Call& call, const Request& request);
  // The doors' edits of the request's head, for the engine, but of names that are edited already.
  static void AddRequestEdits(const Request& request, std::vector<relay::HeaderEdit>& edits);
  // Those of every answer's head.
  static void AddAnswerEdits(const Request& request, std::vector<relay::HeaderEdit>& edits);
  // Before an engine's answer is forwarded, once the edits of its head are put together.
  void Passes(const relay::Call& call, Request& request);
  // Ids are logged up to 128 bytes.
  static std::string_view LoggedId(const Request& request);
  const PolicyParts& parts() const { return parts_; }
  // How long until a request that every endpoint has failed may be tried again, or nothing.
  std::optional<Duration> AgainIn(const relay::Call& call, Request& request);
  // Of a leg of the request: the time limits of its path.
  static void Limit(const relay::Call& call, const Request& request, relay::SendOptions* leg);
  // Ends the call with the answer that was kept.
  void SendKept(relay::Call& call, const Request& request);
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
  static bool Counts(Request& request, relay::Failure failure);
  void AnswerHere(relay::Call& call, Request& request);
  void AnswerLater(relay::Call& call, std::function<http::Response()> make);
  void AnswerModels(relay::Call& call, const Request& request);
  void AnswerWith(relay::Call& call, const http::Response& response);
  void Refuse(relay::Call& call, Request& request, const doors::Refusal& refusal);
  void ReadElsewhere(relay::Call& call, Request& request);
  void Admit(relay::Call& call, Request& request, const std::vector<json::ScannedMember>* members);
  void LeaveDoors(Request& request, TimePoint now);
  static doors::DoorUsage UsageOf(const Request& request);
  void Probe(const relay::UpstreamHealth::Probe& due);
  void AskForModels(const doors::EngineName& engine);
  void RefreshModels();

  const PolicyParts& parts_;
  relay::Loop& loop_;
  DoorKeeper keeper_;
  std::vector<relay::HeaderEdit> edits_;  // of an answer of our own
  Backoff backoff_;
  services::RequestObserver observer_;
};

}  // namespace llmd::gateway
