// The gateway's side of ext_proc: one gRPC stream a request on one connection a loop, all served by
// a thread of its own: gRPC's locks are then never waited for, and nothing is handed to its pool of
// threads. What the loop asks for and what the picker says cross over in batches. Nothing here
// blocks a loop, and what waits for the picker is bounded by the caller, who is told when there is
// room again.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <vector>

#include "llmd/clock.h"

namespace llmd::gateway {

// What a stream tells; on the loop's thread.
class PickerListener {
 public:
  // One ProcessingResponse; holds for the call.
  virtual void OnPickerAnswer(std::string_view message) = 0;
  // After the last one that came with others.
  virtual void OnPickerBatch() = 0;
  // As AskRoom was promised.
  virtual void OnPickerRoom() = 0;
  // Nothing follows. `clean`: the picker ended the stream in order.
  virtual void OnPickerEnd(bool clean, std::string_view why) = 0;

 protected:
  ~PickerListener() = default;
};

// One request's stream. Loop thread only.
class PickerStream {
 public:
  enum class Next : uint8_t {
    kOpen,  // more may follow, some time
    kSoon,  // more follows at once: this need not leave before
    kNone,  // this was the last
  };
  virtual ~PickerStream() = default;
  // `bytes` is what the message counts in queued(). After the last: passed over.
  virtual void Send(grpc::ByteBuffer message, size_t bytes, Next next) = 0;
  // Bytes of messages that gRPC has not taken.
  virtual size_t queued() const = 0;
  // OnPickerRoom once, as soon as not more than so many bytes are queued. False: they are not now.
  virtual bool AskRoom(size_t bytes) = 0;
  // Whether answers are wanted now.
  virtual void SetReading(bool on) = 0;
  // The listener hears nothing any more. Close: no message of ours follows, and the picker ends its
  // side; it is not waited for longer than the client's patience. Cancel: the picker is told that
  // the request is over. Idempotent; the first call counts.
  virtual void Close() = 0;
  virtual void Cancel() = 0;
};

// Loop thread, but where said.
class PickerClient {
 public:
  virtual ~PickerClient() = default;
  // Opens a stream with its first message. `listener` must live until Close or Cancel.
  virtual std::shared_ptr<PickerStream> Open(PickerListener& listener, grpc::ByteBuffer message,
                                             size_t bytes, PickerStream::Next next) = 0;
  virtual bool ready() const = 0;  // connected; any thread
  // When the picker last said anything, on any stream of this client.
  virtual TimePoint heard() const = 0;
  // Asks for a sign of life, unless that has been asked already: any answer counts, be it that the
  // method is not known.
  virtual void Probe() = 0;
  // When the first probe began that is or was not answered, and nothing has come since; max() =
  // none.
  virtual TimePoint unanswered_since() const = 0;
  // From time to time: delivers what a full loop queue left behind, ends streams that linger.
  virtual void OnTick() = 0;
};

struct PickerClientOptions {
  std::shared_ptr<grpc::Channel> channel;
  // Runs a function on the loop; false when it cannot.
  std::function<bool(std::function<void()>)> post;
  Duration probe_timeout = std::chrono::milliseconds(100);
  Duration close_patience = std::chrono::seconds(5);
};

class GrpcPickerClient final : public PickerClient {
 public:
  explicit GrpcPickerClient(PickerClientOptions options);
  ~GrpcPickerClient() { Stop(); }

  std::shared_ptr<PickerStream> Open(PickerListener& listener, grpc::ByteBuffer message,
                                     size_t bytes, PickerStream::Next next) override;
  bool ready() const override { return ready_.load(std::memory_order_relaxed); }
  TimePoint heard() const override { return Get(heard_); }
  void Probe() override;
  TimePoint unanswered_since() const override;
  void OnTick() override;
  // Ends what is left and joins the thread; after it nothing is posted. The loop must have stopped,
  // or run no function of ours any more. Idempotent, any thread but the loop's and ours.
  void Stop();

  // Told by the queue's events; for the streams.
  class Stream;
  class Event {
   public:
    virtual void OnEvent(bool ok) = 0;

   protected:
    ~Event() = default;
  };

 private:
  class ProbeCall;
  struct Watch final : Event {
    explicit Watch(GrpcPickerClient& c) : client(c) {}
    void OnEvent(bool ok) override { client.OnChannelState(); }
    GrpcPickerClient& client;
  };

  // What the loop has asked for, on the queue's thread.
  struct Kick final : Event {
    explicit Kick(GrpcPickerClient& c) : client(c) {}
    void OnEvent(bool ok) override { client.Work(); }
    GrpcPickerClient& client;
  };

  static TimePoint Get(const std::atomic<Duration::rep>& at) {
    return TimePoint(Duration(at.load(std::memory_order_relaxed)));
  }
  static void Set(std::atomic<Duration::rep>& at, TimePoint when) {
    at.store(when.time_since_epoch().count(), std::memory_order_relaxed);
  }
  void Run();
  void WatchChannel();
  void OnChannelState();
  void OnHeard() { Set(heard_, SystemClock().Now()); }
  void OnProbed(bool answered);
  // Has the stream's work done on the queue's thread. Any thread.
  void Ask(std::shared_ptr<Stream> stream);
  void Work();
  // Has the stream delivered on the loop. Queue's thread.
  void Announce(std::shared_ptr<Stream> stream);
  void Drain();
  // One more, or one fewer, thing that gRPC owes events to. False: the client has stopped.
  bool Born(Stream* stream);
  void Died(Stream* stream);
  void Linger(std::weak_ptr<Stream> stream);

  PickerClientOptions options_;
  grpc::CompletionQueue queue_;
  Watch watch_{*this};
  Kick kick_{*this};
  grpc::Alarm alarm_;
  grpc_connectivity_state state_ = GRPC_CHANNEL_IDLE;  // queue's thread
  std::atomic<bool> ready_{false};
  std::atomic<Duration::rep> heard_, probed_, vain_;  // vain_: when the first probe in vain began
  std::atomic<bool> probing_{false}, probe_due_{false};

  std::mutex mutex_;
  std::vector<std::shared_ptr<Stream>> announced_;          // guarded by mutex_
  std::vector<std::shared_ptr<Stream>> asked_;              // guarded by mutex_
  bool posted_ = false, kicked_ = false, stopped_ = false;  // guarded by mutex_
  std::unordered_set<Stream*> streams_;                     // guarded by mutex_
  size_t alive_ = 0;  // guarded by mutex_: streams, a probe, the watch of the channel
  std::condition_variable none_alive_;

  std::vector<std::shared_ptr<Stream>> working_;                       // queue's thread
  std::vector<std::shared_ptr<Stream>> delivering_;                    // loop thread
  std::deque<std::pair<TimePoint, std::weak_ptr<Stream>>> lingering_;  // loop thread
  std::thread thread_;
};

}  // namespace llmd::gateway
