// One connection to an upstream, and the pool of those that are idle. Loop thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "http/relay/loop_impl.h"
#include "http/relay/socket.h"

namespace llmd::relay {

class Upstream final : public Handler {
 public:
  explicit Upstream(LoopImpl& loop);
  Upstream(const Upstream&) = delete;
  Upstream& operator=(const Upstream&) = delete;

  // Connects for the call. False with errno when that failed at once.
  bool Connect(CallImpl& call, UpstreamPool& pool, const Target& target, const UpstreamTls* tls);
  // Takes the call on an idle connection.
  void Reuse(CallImpl& call);
  void OnEvents(uint32_t events) override;

  // For the call.
  // Lets go of the call, whose answer is whole; `clean` = nothing came behind it.
  void Done(bool clean);
  void Close();
  // Goes on after the call took no bytes.
  void Resume();
  // Looks for what a failed write left to be read.
  void Pump();
  // The rest of the request will not be sent: its answer goes on without it.
  void ForgetRequest() { abandoned_ = !sent_all_; }
  // What came and was not taken.
  std::string_view received() const { return in_.view(); }
  // The call's answer was put off at its head, which is `bytes` long and now used up.
  void Consume(size_t bytes) { in_.Consume(bytes); }
  bool idle() const { return state_ == State::kIdle; }

  uint32_t index = 0;       // of the loop's table
  uint32_t pool_index = 0;  // of the idle list, while it is idle

 private:
  friend class UpstreamPool;
  enum class State : uint8_t { kClosed, kConnecting, kHandshake, kIdle, kActive };

  void OnConnecting(uint32_t events);
  void OnHandshake();
  void Start();
  void Write();
  bool Receive();
  bool Swallowed() const;
  void Feed(std::string_view bytes, bool stored);
  void OnEnd(bool in_order);
  void OnTimer();
  void Fail(Failure failure, std::string what);
  void SetTimer(Duration patience);
  bool NothingMore();

  LoopImpl& loop_;
  Socket socket_;
  Timer timer_;
  State state_ = State::kClosed;
  bool readable_ = false, hung_up_ = false, reused_ = false, sent_all_ = false,
       write_failed_ = false, abandoned_ = false, pumping_ = false, silent_ = true, again_ = false;
  UpstreamPool* pool_ = nullptr;
  CallImpl* call_ = nullptr;
  uint64_t epoch_ = 0;                       // of its calls
  size_t sent_ = 0;                          // of the request
  uint64_t written_ = 0, acked_before_ = 0;  // on the connection; before the request
  size_t taken_ = 0;                         // within this event
  Buffer in_;                                // came and was not taken
};

class UpstreamPool {
 public:
  explicit UpstreamPool(const std::shared_ptr<const UpstreamTls>& tls)
      : tls_(tls), secure_(tls != nullptr) {}
  // Nobody can ask for its connections any more.
  bool retired() const { return secure_ && tls_.expired(); }
  // The connection used last, or null.
  Upstream* Take(LoopImpl& loop);
  // False when there is no room for it.
  bool Put(LoopImpl& loop, Upstream& upstream);
  void Remove(LoopImpl& loop, Upstream& upstream);
  void CloseAll();
  size_t users = 0;  // connections open, idle or not

 private:
  const std::weak_ptr<const UpstreamTls> tls_;
  const bool secure_;
  std::vector<Upstream*> idle_;
};

}  // namespace llmd::relay
