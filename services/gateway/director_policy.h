// The gateway's decisions in the relay: asks the Director, sends the request to the endpoint it
// chose, shows it the answer. Another endpoint is tried while no answer has begun; after that an
// engine's death is the relay's to tell. One for each loop.
//
//   a request that is   waits for                                what moves it on
//   deciding            the Director                             → sent, backing off, over
//   sent                the head of the endpoint's answer        → answering, set aside; by
//                                                                  a failure or its page's silence:
//                                                                  sent, deciding, over
//   set aside           the rest of a refusal, which is kept     → sent, deciding, over
//   backing off         a time, as all endpoints have failed it  → deciding
//   answering           the end of the answer                    → over
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gateway/page_watch.h"
#include "gateway/policy_base.h"
#include "llmd/sched/director.h"

namespace llmd::gateway {

// What the policies of all loops share; thread-safe, and outlives them.
struct DirectorParts {
  sched::Director& director;
  PageWatch* const pages = nullptr;  // null = nobody reads endpoints' pages
};

class DirectorPolicy final : public PolicyBase {
 public:
  DirectorPolicy(const PolicyParts& parts, const DirectorParts& own, relay::Loop& loop);
  ~DirectorPolicy() override;

  void OnResponseHead(relay::Call& call, const http::ResponseView& head) override;
  relay::Piece OnResponseBytes(relay::Call& call, std::string_view piece, bool end) override;
  void OnTimer(relay::Call& call) override;
  void OnTick() override;

 protected:
  PolicyBase::Request& Take() override;
  void Give(PolicyBase::Request& request) override;
  void Serve(relay::Call& call, PolicyBase::Request& request) override;
  void LegFailed(relay::Call& call, PolicyBase::Request& request, relay::Failure failure,
                 std::string_view what) override;
  void SetAside(relay::Call& call, PolicyBase::Request& request) override;
  bool Ended(relay::Call& call, PolicyBase::Request& request,
             const relay::Outcome& outcome) override;
  Key Answering(const PolicyBase::Request& request, relay::Target* target) const override;

 private:
  // One request on its way; used again for the next, with its buffers.
  struct Request final : PolicyBase::Request {
    DirectorPolicy* owner = nullptr;
    relay::Call* call = nullptr;  // while it waits for the first byte of an answer; else null
    relay::Call* served = nullptr;
    uint64_t attempt = 0;  // no other of the policy's has this number; 0 = none was asked for yet
    // Of a large body: nobody waits for the decision any more. Null for others.
    std::shared_ptr<std::atomic<bool>> unwanted;
    sched::HeaderList headers, answer_headers;
    sched::Routing routing;
    std::shared_ptr<sched::RequestState> state;
    bool deciding = false;   // the Director reads headers and body, and will answer
    bool abandoned = false;  // the call is over, the Director is still to answer
    bool panic = false;      // those that are out are asked too
    bool routed = false;     // to be ended: with the answer's end, or cancelled
    bool answering = false;  // the answer's head has been sent on
    bool backing_off = false;
    TimePoint asked{};
    std::string target_model;
    std::vector<sched::EndpointId> failed, exclude;
    size_t next = 0;  // of the routing's endpoints
    sched::EndpointId endpoint_id{};
    relay::Target target;
    relay::Failure failure = relay::Failure::kOurs;
    std::string failure_text;
    std::vector<relay::HeaderEdit> edits;
    std::vector<std::string_view> body;
    std::string replaced, joined;
    void Clear();
  };
  static Request& Mine(relay::Call& call) { return static_cast<Request&>(Of(call)); }

  sched::RequestInput InputOf(relay::Call& call, Request& request);
  static void AddDoors(const Request& request, sched::RequestInput& input);
  void Decide(relay::Call& call, Request& request);
  void DecideElsewhere(relay::Call& call, sched::RequestInput input,
                       std::function<void(sched::Routing)> later);
  void Exclude(Request& request);
  void Decided(relay::Call& call, Request& request);
  bool TryNext(relay::Call& call, Request& request);
  void TryElsewhere(relay::Call& call, Request& request);
  void NobodyElse(relay::Call& call, Request& request);
  void LastWord(relay::Call& call, Request& request);
  void LeaveSilent(Request& request);
  const std::vector<std::string>& Silent();
  void SendTo(relay::Call& call, Request& request, size_t index);
  void FillEdits(Request& request, std::string_view traceparent);
  void FillBody(relay::Call& call, Request& request);
  void GiveUp(relay::Call& call, Request& request);
  void Deny(relay::Call& call, Request& request, const sched::Denial& denial);
  void PostEviction(Request& request, uint64_t attempt, const sched::Denial& denial);
  void Evicted(relay::Call& call, const sched::Denial& denial);
  void EndRouting(Request& request);
  struct Known {
    std::string address, name;
    relay::Target target;
  };
  // Null when the address is none.
  const Known* KnownOf(sched::EndpointId id, std::string_view address);
  const std::string& NameOf(const std::string& address);
  const std::vector<Key>& Ejected();
  bool IsEjected(sched::EndpointId id);

  const DirectorParts& own_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  uint64_t attempts_ = 0;
  std::unordered_map<uint64_t, Known> targets_;
  std::unordered_map<std::string, std::string> names_;  // by address
  uint64_t ejected_version_ = 0;
  std::shared_ptr<const std::vector<Key>> ejected_;
  uint64_t silent_version_ = 0;
  std::shared_ptr<const std::vector<std::string>> silent_;
};

}  // namespace llmd::gateway
