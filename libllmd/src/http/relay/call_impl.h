// One request of the relay, from its head to the end of its answer. Loop thread only.
//
//   phase        what moves it on
//   reading      the client's connection, until the request is whole          → deciding, answered
//   deciding     the policy has it: Send, Answer                              → leg, answered
//   leg          an upstream is asked; until the answer's head                → head, deciding,
//   collecting head         OnResponseHead was called: Forward                           →
//   relaying, deciding … collecting   the answer is gathered for the policy → deciding relaying the
//   answer's body passes                                     → answered answered     all of the
//   answer is handed to the client's connection       → over over         OnEnd was called;
//   retained until LetGo, or free
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "http/parser.h"
#include "http/relay/buffers.h"
#include "http/relay/event_tail.h"
#include "http/relay/loop_impl.h"
#include "http/writer.h"
#include "llmd/http/relay/call.h"

namespace llmd::relay {

class CallImpl final : public Call {
 public:
  CallImpl(LoopImpl& loop, uint32_t slot);
  ~CallImpl();
  CallImpl(const CallImpl&) = delete;
  CallImpl& operator=(const CallImpl&) = delete;

  // Call.
  const http::RequestView& request() const override { return head_.view; }
  std::string_view body() const override;
  bool has_body() const override { return head_.announces_body; }
  std::string_view peer() const override;
  Connection* connection() const override;
  bool tls() const override;
  std::string_view client_subject() const override;
  TimePoint received() const override { return outcome_.received; }
  TimePoint now() const override { return loop_.now(); }
  Loop& loop() const override { return loop_; }
  CallRef ref() const override { return loop_.RefOf(*this); }
  void Send(const SendOptions& options) override;
  void Answer(int status, std::span<const HeaderEdit> headers, std::string_view body) override;
  void Forward(std::span<const HeaderEdit> edits, BodyMode mode) override;
  std::string_view whole_body() const override;
  void Collect(size_t bytes) override;
  void Drop() override;
  void Abort() override;
  void BreakOff(std::string_view error) override;
  void Release(std::string_view bytes, size_t covers, bool last) override;
  size_t unsent() const override;
  void SetTimer(Duration delay) override;
  void Retain() override { retained_ = true; }
  void LetGo() override;

  // For the loop.
  uint32_t slot() const { return slot_; }
  uint32_t generation = 1;
  bool over() const { return phase_ == Phase::kOver; }

  // For the client's connection; null = a call of the policy's own.
  void Begin(Client* client, TimePoint received);
  http::RequestHeadView& head() { return head_; }
  void SetRefused() { outcome_.refused = true; }
  // The request is whole.
  void Decide();
  // Bytes for a client that was behind have gone.
  void ClientCaughtUp();
  // It cannot be written to any more.
  void ClientBroke();
  // It left: whatever is under way is broken off. Then End.
  void ClientLeft();
  // The last hook. True when the policy retains the request's bytes: see Keep.
  bool End();
  void Keep(Buffer input, Buffer body);

  // For the upstream's connection.
  // What to send: the head, then the parts of the body.
  std::string_view leg_head() const { return leg_head_; }
  std::span<const std::string_view> leg_body() const { return leg_body_; }
  const SendOptions& leg() const { return leg_; }
  // Whether more of the answer may be taken now.
  bool wants_bytes() const;
  // Takes what it can of the bytes that came; what is left is shown again, with what comes then.
  size_t OnUpstreamBytes(std::string_view bytes);
  // Bytes that were left moved by so much, and the views into them with them.
  void UpstreamBytesMoved(const char* from, const char* to);
  // The upstream ended its side in order, or broke off.
  void OnUpstreamEnd(bool in_order);
  void OnLegFailed(Failure failure, std::string_view what);
  // The request was swallowed by a connection that had been idle.
  void Replay();
  // Whether that may be done still: once a call.
  bool TakeReplay() { return !std::exchange(replayed_, true); }
  bool answer_begun() const { return phase_ != Phase::kLeg; }
  void PumpUpstream();

 private:
  friend class LoopImpl;
  enum class Phase : uint8_t {
    kReading,
    kDeciding,
    kLeg,
    kHead,
    kCollecting,
    kRelaying,
    kAnswered,
    kOver
  };
  using Body = http::ResponseFraming::Body;

  void Reset();
  void StartLeg(bool may_reuse);
  void DropUpstream();
  // A leg's answer is whole; `left` bytes behind it belong to nobody.
  void LegDone(size_t left);
  void DeliverFailure();
  std::string Where() const;

  size_t ReadAnswerHead(std::string_view bytes);
  bool StartAnswer(std::string_view head, std::string_view behind);
  void BeginCollecting(std::string_view head);
  size_t Gather(std::string_view bytes);
  size_t RelayBody(std::string_view bytes);
  bool Show(const std::vector<std::string_view>& pieces, bool end);
  void Edit(const std::vector<std::string_view>& pieces, bool end);
  http::ResponseFraming FrameAnswer(BodyMode mode);
  bool keep_client() const;
  http::ResponseFraming::Persist PersistLine(bool keep) const;
  // Content on its way to the client, in its framing.
  void SendContent(std::span<const std::string_view> pieces, bool end);
  void SendChunks(std::span<const std::string_view> pieces, std::string_view framed);
  void EndUntilClose();
  void SendParts(std::span<const std::string_view> parts);
  void HoldLine(std::vector<std::string_view>* pieces, bool end);
  void FlushLine();
  void ArmHeartbeat();
  void Heartbeat();
  void FinishAnswer();
  void CutAnswer();
  void Cut(Failure failure, std::string_view what);
  void EndWithEvent(std::string_view error);
  void EndOnClient(bool keep, bool reset);
  void EndDetached();

  LoopImpl& loop_;
  const uint32_t slot_;
  Phase phase_ = Phase::kReading;
  bool retained_ = false, paused_ = false, ending_ = false, replayed_ = false;
  Client* client_ = nullptr;
  http::RequestHeadView head_;
  Outcome outcome_;
  Timer timer_, line_timer_, heartbeat_timer_;
  Buffer kept_input_, kept_body_;
  std::string_view kept_body_view_;
  size_t kept_bytes_ = 0;  // in Shared::body_bytes

  // The leg.
  SendOptions leg_;  // without its views
  std::string leg_head_;
  std::vector<std::string_view> leg_body_;
  bool leg_to_head_ = false;  // it asks with HEAD
  Upstream* upstream_ = nullptr;
  Failure failure_ = Failure::kOurs;
  std::string failure_text_;

  // Its answer.
  http::HeadScanner scanner_{{}};
  http::ResponseHeadView answer_;
  http::BodyDecoder decoder_;
  int informational_ = 0;
  std::string_view head_text_, whole_body_;  // within OnResponseHead
  size_t held_head_bytes_ = 0;               // of a head that waits for Forward
  std::string collected_head_;
  Buffer collected_;

  // The client's answer.
  BodyMode mode_ = BodyMode::kPass;
  Body framing_ = Body::kNone;
  bool keep_ = false, event_stream_ = false, upstream_ended_ = false;
  std::string pending_head_;  // goes with the first bytes of the body
  EventTail tail_;
  std::string line_;      // of an event stream, not yet whole
  size_t unsettled_ = 0;  // bytes that the policy holds
};

}  // namespace llmd::relay
