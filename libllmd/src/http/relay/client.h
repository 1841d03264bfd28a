// One client's connection: reads requests, one at a time, and sends what their calls answer. Loop
// thread only.
//
//   handshake → idle → head → body → call → flush ─┬→ idle
//                                                  └→ linger → (closed)
// A request that is refused goes from head or body to flush. In call a bounded number of bytes is
// what a client sends ahead stays in its socket, and its leaving is seen by the poller.
#pragma once

#include "http/parser.h"
#include "http/relay/loop_impl.h"
#include "http/relay/socket.h"

namespace llmd::relay {

class Client final : public Handler {
 public:
  explicit Client(LoopImpl& loop);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // A new connection. With `full` its first request is refused.
  void Begin(int fd, bool full);
  void OnEvents(uint32_t events) override;
  bool open() const { return state_ != State::kClosed; }
  bool idle() const { return state_ == State::kIdle && in_.empty(); }
  // Ends the connection and the call on it.
  void Cut();
  void CloseIfIdle();

  // For the call on it.
  // Sends all parts, now or as the client takes them. What cannot be sent any more is dropped.
  void Send(iovec* parts, size_t count);
  // Bytes wait for the client to read.
  bool behind() const { return !out_.empty(); }
  size_t unsent() const { return out_.size(); }
  // What comes once all is sent.
  enum class After { kNext, kClose, kReset };
  void EndAnswer(After after);
  // The request's bytes are not needed any more.
  void ReleaseRequest();
  // Whether an answer now leaves the connection at the start of the next request: the body has been
  // read, or has come.
  bool body_settled() const { return state_ != State::kBody || CanSkipBody(); }
  const std::string& peer() const { return peer_; }
  Connection& connection() { return connection_; }
  bool tls() const { return socket_.tls(); }
  const std::string& subject() const { return subject_; }  // of its verified certificate
  std::string_view body() const { return body_view_; }

  uint32_t index = 0;  // of the loop's table

 private:
  enum class State : uint8_t { kClosed, kHandshake, kIdle, kHead, kBody, kCall, kFlush, kLinger };

  void Drive();
  bool Step();
  bool StepHandshake();
  bool HandshakeFailed();
  void Linger();
  bool StepHead();
  bool StepBody();
  bool StepFlush();
  bool StepLinger();
  void RefuseConnection(const Refusal& refusal);
  void StartCall(TimePoint received);
  bool BeginCall();
  void StartBody();
  void StartLengthBody(uint64_t length);
  bool Dispatch(std::string_view body);
  bool ReadLengthBody();
  bool ReadChunkedBody();
  bool Decode(std::string_view input, bool from_input);
  bool CountHead();
  void UncountHead();
  bool CountBody(size_t bytes);
  void Refuse(int status, std::string_view message) { Refuse(Refusal{status, message}); }
  void Refuse(const Refusal& refusal);
  bool CanSkipBody() const;
  void OnTimer();
  void OnGone();
  bool Gone() const;
  void ReadAhead();
  void TakeAhead();
  bool Receive(char* to, size_t room, size_t* got);
  void ArmForState();
  void ArmBody();
  void Flush();
  void FinishCall();
  void Close(bool reset = false);
  void ForgetBody();

  LoopImpl& loop_;
  Socket socket_;
  Timer timer_;
  State state_ = State::kClosed;
  After after_ = After::kNext;
  bool driving_ = false, readable_ = false, hung_up_ = false, broken_ = false;
  bool in_place_ = false, continued_ = false, again_ = false, introduced_ = false;

  Buffer in_;        // what came and was not used up, the call's head at its front
  size_t used_ = 0;  // of in_, by the call
  http::HeadScanner scanner_;
  http::BodyDecoder decoder_;
  Buffer body_, ahead_;  // a body that is not in in_; what came behind one
  std::string_view body_view_;
  uint64_t body_bytes_ = 0;  // received of it
  size_t taken_ = 0;         // within this event
  size_t counted_ahead_ = 0;
  size_t counted_head_ = 0;   // told to the policy, of in_
  size_t counted_bytes_ = 0;  // in Shared::body_bytes, and told to the policy
  TimePoint head_started_{}, body_started_{}, last_write_{};
  Buffer out_;
  CallImpl* call_ = nullptr;
  std::string peer_, subject_;
  Connection connection_;
};

}  // namespace llmd::relay
