// One request of the gateway with a picker of its own (--epp). Loop thread only.
//
//   state     what it waits for                                   what moves it on
//   asking    the picker's routing                                → leg, over
//   leg       the engine's head                                   → head, passing, asking again
//   backoff   a time: all endpoints have failed it                → asking, leg
//   head      what the picker says of it                          → whole, body, passing, over
//   whole     what it says of the body, all of which has come     → body, passing, over
//   body      the rest of the answer, through the picker          → passing, over
//   passing   the rest of the answer, which the picker needs not see, or does not see any more
//   over      the end of the call
//
// The picker owes an answer in asking, head and whole, and in body for what it has been sent. When
// it gives no sign of life while it owes one, or breaks off, it is lost: see Lost.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/ext_proc_answer.h"
#include "gateway/ext_proc_client.h"
#include "gateway/ext_proc_endpoints.h"
#include "gateway/policy_base.h"

namespace llmd::gateway {

class ExtProcPolicy;

class ExtProcCall final : public PolicyBase::Request, public PickerListener {
 public:
  explicit ExtProcCall(ExtProcPolicy& policy) : policy_(policy) {}

  void Begin(relay::Call& call);  // the request is whole
  void OnFailure(relay::Failure failure);
  void OnSetAside();
  void OnResponseHead(const http::ResponseView& head);
  relay::Piece OnResponseBytes(std::string_view piece, bool end);
  void OnTimer();
  // The call is over; it may begin another one.
  void End(bool whole);
  const relay::Target& target() const { return target_; }  // that `endpoint` names

  void OnPickerAnswer(std::string_view message) override;
  void OnPickerBatch() override;
  void OnPickerRoom() override;
  void OnPickerEnd(bool clean, std::string_view why) override;

 private:
  enum class State : uint8_t { kAsking, kLeg, kBackOff, kHead, kWhole, kBody, kPassing, kOver };

  // Asking (ext_proc_call.cc).
  void FindModel();
  void Ask();
  void SendBody();
  void OnRouting(const PickerAnswer& answer, std::string_view message);
  void ReadRouting(const PickerAnswer& answer, std::string_view message);
  void OnReturnedBody(const PickerAnswer& answer);
  void Routed();
  void Denied(const PickerAnswer& answer);
  void Evicted(const PickerAnswer& answer);
  // Legs (ext_proc_leg.cc).
  void TryNext();
  bool TryAmong(bool ejected_too);
  void SendLeg(const relay::Target& target, std::string_view address);
  std::string_view SetTraceparent() const;
  void SetEdit(std::string_view name, std::string_view value);
  void GoWithoutPicker();
  void NobodyElse();
  void GoOn();
  void LastWord();
  void NoneAnswered();
  bool MayAsk() const;
  bool HasFailed(std::string_view address) const;
  // The picker (ext_proc_leg.cc).
  bool Owes() const;
  Duration Patience() const;
  void Pause();
  void ReadOnWhenSent();
  void Wait();
  void Lost(std::string_view why);
  void Refuse(int status, std::string_view message);
  void PassDenial(const PickerAnswer& answer);
  void DropStream(bool whole);
  // The answer (ext_proc_call.cc).
  void OnHeadAnswer(const PickerAnswer& answer);
  void ForwardWhole();
  void PassOn();
  void Forward(relay::BodyMode mode, std::string_view mutation);

  ExtProcPolicy& policy_;
  relay::Call* call_ = nullptr;
  State state_ = State::kOver;
  std::shared_ptr<PickerStream> stream_;
  relay::Target target_;

  // The request on its way to the picker and back.
  size_t body_sent_ = 0, pieces_sent_ = 0, pieces_back_ = 0;
  bool head_back_ = false, body_back_ = false, body_edited_ = false;
  size_t same_bytes_ = 0;    // of the body, returned as they were
  std::string edited_body_;  // from the first difference on: all of it
  std::string routing_;      // the answer with the routing; views into it:
  std::vector<relay::HeaderEdit> edits_;
  std::string_view path_;
  std::vector<Endpoint> endpoints_;

  // Tries.
  std::vector<std::string> failed_;
  int asks_ = 0;
  bool panic_ = false;        // nothing else is left: ejected endpoints may be picked
  bool excluded_ = false;     // the picker was told to leave some out that have not failed here
  bool asked_twice_ = false;  // since the first stream broke off
  bool tried_ = false;        // an endpoint of this routing
  bool alone_ = false;        // tries go on without the picker
  relay::Failure last_failure_ = relay::Failure::kOurs;

  AnswerPipe pipe_;
  bool head_only_ = false;        // the answer has no body
  bool body_sent_ahead_ = false;  // all of it, before the head was let go
  std::string head_mutation_;     // meanwhile
  TimePoint owed_since_{};        // or when the picker last moved this request
  bool timer_set_ = false;
  bool paused_ = false;  // the picker is not read: the client is behind
};

}  // namespace llmd::gateway
