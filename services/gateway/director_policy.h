// The gateway's decisions in the relay: asks the Director, sends the request to the endpoint it
// chose, shows it the answer. Another endpoint is tried while no answer has begun; after that an
// engine's death is the relay's to tell. One for each loop.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gateway/gateway_metrics.h"
#include "gateway/routes.h"
#include "llmd/http/relay/policy.h"
#include "llmd/http/relay/upstream_health.h"
#include "llmd/log.h"
#include "llmd/sched/director.h"
#include "llmd/worker_pool.h"

namespace llmd::gateway {

struct GatewayOptions {
  int max_attempts = 3;  // endpoints that one request is sent to, at most
  Duration first_byte_timeout = std::chrono::seconds(600);
  Duration gap_timeout = std::chrono::seconds(600);
  bool access_log = true;  // a line for each request
};

// What the policies of all loops share; thread-safe, and outlives them.
struct GatewayParts {
  sched::Director& director;
  const Routes& routes;
  GatewayMetrics& metrics;
  relay::UpstreamHealth& health;
  WorkerPool& workers;  // for pages that take long to write
  const GatewayOptions options;
  const Logger logger;
};

class DirectorPolicy final : public relay::Policy {
 public:
  DirectorPolicy(GatewayParts& parts, relay::Loop& loop);
  ~DirectorPolicy() override;

  void OnHead(relay::Call& call) override;
  void OnRequest(relay::Call& call) override;
  void OnRefused(relay::Call& call, const relay::Refusal& refusal) override;
  void OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnResponseHead(relay::Call& call, const http::ResponseView& head) override;
  relay::Piece OnResponseBytes(relay::Call& call, std::string_view piece, bool end) override;
  void OnCollected(relay::Call& call, const http::ResponseView& head,
                   std::string_view body) override;
  std::string_view OnCut(relay::Call& call, relay::Failure failure, std::string_view what) override;
  void OnEnd(relay::Call& call, const relay::Outcome& outcome) override;
  void OnTick() override;

 private:
  using Key = relay::UpstreamHealth::Key;
  // One request on its way; used again for the next, with its buffers.
  struct Request {
    DirectorPolicy* owner = nullptr;
    std::string id, method, path;
    sched::HeaderList headers, answer_headers;
    sched::Routing routing;
    std::shared_ptr<sched::RequestState> state;
    bool deciding = false;   // the Director reads headers and body, and will answer
    bool abandoned = false;  // the call is over, the Director is still to answer
    bool panic = false;      // those that are out are asked too
    bool routed = false;     // to be ended: with the answer's end, or cancelled
    bool answering = false;  // the answer's head has been sent on
    bool proxied = false;    // not answered by the gateway itself
    TimePoint asked{};
    std::string target_model;
    std::vector<sched::EndpointId> failed, exclude;
    size_t next = 0;  // of the routing's endpoints
    int sent = 0;     // so many times
    sched::EndpointId endpoint{};
    relay::Target target;
    std::string endpoint_name;  // "ip:port"
    relay::Failure failure = relay::Failure::kOurs;
    std::string failure_text;
    std::vector<relay::HeaderEdit> edits;
    std::vector<std::string_view> body;
    std::string replaced, joined;
    const LocalPage* page = nullptr;  // to be written elsewhere
    Key probe = 0;                    // of a call of our own: whom it asks
    void Clear();
  };
  static Request& Of(relay::Call& call) { return *static_cast<Request*>(call.context); }

  Request& Take(relay::Call& call);
  void Give(Request& request);
  void Name(relay::Call& call, Request& request);
  bool AnswerHere(relay::Call& call, const LocalPage& page);
  void AnswerLater(relay::Call& call, const LocalPage& page);
  void Answer(relay::Call& call, int status, std::string_view message, std::string_view allow = {});
  void AnswerWith(relay::Call& call, const http::Response& response);

  void Decide(relay::Call& call, Request& request);
  void Exclude(Request& request);
  void Decided(relay::Call& call, Request& request);
  bool TryNext(relay::Call& call, Request& request);
  void SendTo(relay::Call& call, Request& request, size_t index);
  void FillEdits(Request& request);
  void FillBody(relay::Call& call, Request& request);
  void GiveUp(relay::Call& call, Request& request);
  void Deny(relay::Call& call, Request& request, const sched::Denial& denial);
  void Evicted(relay::Call& call, const sched::Denial& denial);
  void EndRouting(Request& request);
  const relay::Target* TargetOf(sched::EndpointId id, std::string_view address);
  const std::vector<Key>& Ejected();
  bool IsEjected(sched::EndpointId id);
  void Log(const Request& request, const relay::Outcome& outcome);

  GatewayParts& parts_;
  relay::Loop& loop_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  struct Known {
    std::string address;
    relay::Target target;
  };
  std::unordered_map<uint64_t, Known> targets_;
  uint64_t ejected_version_ = 0;
  std::shared_ptr<const std::vector<Key>> ejected_;
};

}  // namespace llmd::gateway
