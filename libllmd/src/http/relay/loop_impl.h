// One thread of the relay: an epoll, a timer wheel, buffers, its clients, its upstreams and its
// policy. All members but Post, PostTo, Adopt, Stop and the counters are for the loop's thread.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "http/body_decoder.h"
#include "http/relay/buffers.h"
#include "http/relay/socket.h"
#include "http/relay/timer_wheel.h"
#include "llmd/http/relay/relay.h"

namespace llmd::relay {

class CallImpl;
class Client;
class Upstream;
class UpstreamPool;

// What an epoll event is for.
class Handler {
 public:
  virtual void OnEvents(uint32_t events) = 0;

 protected:
  ~Handler() = default;
};

// What all loops of a relay share. Counters only: no loop waits for another.
struct Shared {
  explicit Shared(RelayOptions o) : options(std::move(o)) {}
  const RelayOptions options;
  Logger logger;
  std::atomic<size_t> connections{0};
  std::atomic<size_t> body_bytes{0};
  std::atomic<bool> draining{false}, cutting{false};
  std::vector<class LoopImpl*> loops;  // filled before the threads start
};

class LoopImpl final : public Loop {
 public:
  static constexpr size_t kScratchBytes = 64 * 1024;

  LoopImpl(Shared& shared, int index);
  ~LoopImpl();
  // Before Start: the epoll and its eventfd.
  Status Prepare(int listener);
  void UsePolicy(std::unique_ptr<Policy> policy) { policy_ = std::move(policy); }
  void Start();
  bool started() const { return thread_.joinable(); }
  // Stops accepting and closes what is idle. Loop thread.
  void BeginDrain();
  // Cuts what is left and joins the thread. Any other thread.
  void Stop();

  int index() const override { return index_; }
  TimePoint now() const override { return now_; }
  bool Post(std::function<void()> fn) override;
  Call& Open() override;
  // Hands over a connection that another loop accepted; with `full` it is refused. Any thread.
  void Adopt(int fd, bool full);

  // For clients, upstreams and calls.
  Shared& shared() { return shared_; }
  const RelayOptions& options() const { return shared_.options; }
  Policy& policy() { return *policy_; }
  TimerWheel& wheel() { return wheel_; }
  BufferPool& buffers() { return buffers_; }
  bool Watch(int fd, Handler& handler);
  CallImpl& TakeCall();
  void FreeCall(CallImpl& call);
  CallRef RefOf(const CallImpl& call);
  UpstreamPool& PoolOf(const Target& target, const std::shared_ptr<const UpstreamTls>& tls);
  // For legs that name none; null = clear text.
  const std::shared_ptr<const UpstreamTls>& upstream_tls() const { return upstream_tls_; }
  WarmSessions& warm() { return warm_; }
  Upstream& TakeUpstream();
  // Ended connections stay until the turn is over: events for them may be in hand.
  void Retire(Client& client);
  void Retire(Upstream& upstream);
  // So do the bytes that they received: what is on its way to a client may be views into them.
  void Retire(Buffer buffer) {
    if (buffer.has_block()) dead_buffers_.push_back(std::move(buffer));
  }
  // The handler has more to do: it gets an event without flags in the next turn. To be asked for
  // once before that.
  void Again(Handler& handler) { again_.push_back(&handler); }
  // Runs at the end of the events in hand, unless the call is over by then.
  void Defer(const CallImpl& call, void (*fn)(CallImpl&));

  // Received into and used within one event.
  char* scratch() { return scratch_.get(); }
  char* record() { return record_.get(); }
  std::string& head_scratch() { return head_scratch_; }
  std::string& flat_scratch() { return flat_scratch_; }
  std::vector<std::string_view>& pieces_scratch() { return pieces_scratch_; }
  std::vector<iovec>& iovec_scratch() { return iovec_scratch_; }

  LoopStats Stats() const;
  // Written by the loop alone.
  struct Counters {
    std::atomic<uint64_t> accepted{0}, calls{0}, connects{0}, replays{0}, turns{0}, handshakes{0},
        handshake_failures{0};
    std::atomic<size_t> connections{0}, active_calls{0}, upstream_open{0}, upstream_idle{0};
  };
  Counters counters;
  template <typename T>
  static void Bump(std::atomic<T>& counter, T by = 1) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

 private:
  struct PoolKey {
    Target target;
    const UpstreamTls* tls;
    friend bool operator==(const PoolKey&, const PoolKey&) = default;
  };
  struct PoolHash {
    size_t operator()(const PoolKey& key) const {
      return key.target.Hash() ^ std::hash<const void*>()(key.tls);
    }
  };
  struct Deferred {
    uint32_t slot, generation;
    void (*fn)(CallImpl&);
  };
  // Accepting and the queue from other threads are handlers too.
  struct Acceptor final : Handler {
    explicit Acceptor(LoopImpl& l) : loop(l) {}
    void OnEvents(uint32_t events) override { loop.Accept(); }
    LoopImpl& loop;
  };
  struct Waker final : Handler {
    explicit Waker(LoopImpl& l) : loop(l) {}
    void OnEvents(uint32_t events) override { loop.woken_ = true; }
    LoopImpl& loop;
  };

  bool Push(std::function<void()> fn, size_t limit);
  bool PostTo(uint32_t slot, uint32_t generation, std::function<void(Call&)> fn) override;
  void Run();
  void Turn();
  int WaitMillis() const;
  void RunPosts();
  void RunDeferred();
  void RunAgain();
  void EmptyGraveyard();
  void Accept();
  void WarnOfAccept(int error);
  bool RefuseByTheSpare();
  bool OpenSpare();
  LoopImpl& LeastLoaded();
  void AddClient(int fd, bool full);
  void Listen();
  void CloseListener();
  void CutAll();
  void Tick();
  void LookAtUpstreamTls();
  void PrunePools();
  CallImpl* Find(uint32_t slot, uint32_t generation);

  Shared& shared_;
  const int index_;
  int epoll_ = -1, event_ = -1, listener_ = -1;
  int spare_ = -1;  // a descriptor to be given up when there are no others
  bool listening_ = false, woken_ = false;
  TimePoint now_, warn_again_{};
  TimerWheel wheel_;
  BufferPool buffers_;
  std::vector<Buffer> dead_buffers_;
  WarmSessions warm_;
  std::unique_ptr<char[]> scratch_, record_;
  std::string head_scratch_, flat_scratch_;
  std::vector<std::string_view> pieces_scratch_;
  std::vector<iovec> iovec_scratch_;
  Acceptor acceptor_;
  Waker waker_;
  Timer tick_, accept_again_;

  std::unique_ptr<Policy> policy_;
  std::vector<std::unique_ptr<CallImpl>> calls_;  // by slot
  std::vector<uint32_t> free_calls_;
  std::vector<std::unique_ptr<Client>> clients_;  // by their index
  std::vector<Client*> free_clients_, dead_clients_;
  std::vector<std::unique_ptr<Upstream>> upstreams_;
  std::vector<Upstream*> free_upstreams_, dead_upstreams_;
  std::shared_ptr<const UpstreamTls> upstream_tls_;
  std::unordered_map<PoolKey, std::unique_ptr<UpstreamPool>, PoolHash> pools_;
  // Their TLS is gone and its address in use again.
  std::vector<std::unique_ptr<UpstreamPool>> retired_pools_;
  std::vector<Deferred> deferred_, running_deferred_;
  std::vector<Handler*> again_, running_again_;

  std::mutex mutex_;
  std::vector<std::function<void()>> posts_;  // guarded by mutex_
  bool closed_ = false;                       // guarded by mutex_: takes no posts any more
  std::vector<std::function<void()>> running_posts_;
  std::atomic<bool> wake_pending_{false};
  std::atomic<std::thread::id> thread_id_{};
  std::thread thread_;
};

}  // namespace llmd::relay
