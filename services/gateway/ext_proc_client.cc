#include "gateway/ext_proc_client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/async_unary_call.h>
#include <pthread.h>

#include <algorithm>
#include <utility>

namespace llmd::gateway {
namespace {

using grpc::ByteBuffer;
using Next = PickerStream::Next;

constexpr char kProcess[] = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
constexpr char kCheck[] = "/grpc.health.v1.Health/Check";
// Answers that wait for the loop; above, the picker is not read on.
constexpr size_t kMaxInboxBytes = 256 << 10;
constexpr std::chrono::milliseconds kWatchEvery{200};

}  // namespace

// The loop's side leaves what it wants under the lock; operations are started by the queue's thread
// alone. gRPC allows one write and one read at a time. It lives until gRPC owes it no event.
class GrpcPickerClient::Stream final : public PickerStream,
                                       public std::enable_shared_from_this<Stream> {
 public:
  Stream(GrpcPickerClient& client, PickerListener& listener)
      : client_(client), listener_(&listener) {}

  bool Start(ByteBuffer message, size_t bytes, Next next) {
    if (!client_.Born(this)) return false;
    self_ = shared_from_this();
    const std::lock_guard lock(mutex_);
    Queue(std::move(message), bytes, next);
    AskLocked();
    return true;
  }

  void Send(ByteBuffer message, size_t bytes, Next next) override {
    const std::lock_guard lock(mutex_);
    if (closing_ || ended_) return;
    Queue(std::move(message), bytes, next);
    AskLocked();
  }
  size_t queued() const override {
    const std::lock_guard lock(mutex_);
    return queued_;
  }
  bool AskRoom(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    if (queued_ <= bytes) return false;
    room_below_ = bytes;
    return room_wanted_ = true;
  }
  void SetReading(bool on) override {
    const std::lock_guard lock(mutex_);
    held_ = !on;
    if (on && !ended_) AskLocked();
  }
  void Close() override {
    if (listener_ == nullptr) return;
    listener_ = nullptr;
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      held_ = false;
      if (ended_) return;
      if (!half_closed_) AskLocked();
    }
    client_.Linger(weak_from_this());
  }
  void Cancel() override {
    if (listener_ == nullptr) return;
    listener_ = nullptr;
    BreakOff();
  }
  // Any thread.
  void BreakOff() {
    const std::lock_guard lock(mutex_);
    closing_ = cancelled_ = true;
    held_ = false;
    if (!ended_) AskLocked();
  }

  // Queue's thread: does what the loop has asked for.
  void Work() {
    const std::lock_guard lock(mutex_);
    asked_ = false;
    if (rpc_ == nullptr) Call();
    if (cancelled_ && !ended_) context_.TryCancel();
    Pump();
    ReadOn();
  }

  // What has come since the last time, on the loop.
  void Deliver() {
    bool room = false, over = false;
    {
      const std::lock_guard lock(mutex_);
      announced_ = false;
      delivered_.swap(inbox_);
      inbox_bytes_ = 0;
      room = std::exchange(room_, false);
      over = ended_ && !std::exchange(told_end_, ended_);
      if (!reading_ && !read_over_ && !held_) AskLocked();
    }
    for (const ByteBuffer& message : delivered_) {
      if (listener_ != nullptr) Tell(message);
    }
    if (!delivered_.empty() && listener_ != nullptr) listener_->OnPickerBatch();
    delivered_.clear();
    if (room && listener_ != nullptr) listener_->OnPickerRoom();
    if (over && listener_ != nullptr) listener_->OnPickerEnd(status_.ok(), status_.error_message());
  }

 private:
  struct Out {
    ByteBuffer message;
    size_t bytes;
    Next next;
  };
  enum class Kind : uint8_t { kRead, kWrite, kFinish };
  struct Tag final : Event {
    Tag(Stream& s, Kind k) : stream(s), kind(k) {}
    void OnEvent(bool ok) override { stream.OnEvent(kind, ok); }
    Stream& stream;
    const Kind kind;
  };

  void Tell(const ByteBuffer& message) {
    grpc::Slice slice;
    if (!message.TrySingleSlice(&slice).ok() && !message.DumpToSingleSlice(&slice).ok()) return;
    listener_->OnPickerAnswer({reinterpret_cast<const char*>(slice.begin()), slice.size()});
  }

  // With the lock held.
  void AskLocked() {
    if (!std::exchange(asked_, true)) client_.Ask(shared_from_this());
  }
  void Call() {
    const grpc::internal::RpcMethod method(kProcess, grpc::internal::RpcMethod::BIDI_STREAMING);
    context_.set_initial_metadata_corked(true);
    rpc_.reset(grpc::internal::ClientAsyncReaderWriterFactory<ByteBuffer, ByteBuffer>::Create(
        client_.options_.channel.get(), &client_.queue_, method, &context_, false, nullptr));
    rpc_->StartCall(nullptr);
  }
  void Queue(ByteBuffer message, size_t bytes, Next next) {
    queued_ += bytes;
    out_.push_back({std::move(message), bytes, next});
  }
  void Pump() {
    if (writing_ || half_closed_ || broken_ || read_over_) return;
    if (out_.empty()) {
      if (!closing_) return;
      half_closed_ = writing_ = true;
      rpc_->WritesDone(&write_);
      return;
    }
    const Out& front = out_.front();
    grpc::WriteOptions options;
    if (front.next == Next::kSoon) options.set_buffer_hint();
    if (front.next == Next::kNone) {
      options.set_last_message();
      half_closed_ = true;
    }
    writing_ = true;
    rpc_->Write(front.message, options, &write_);
  }
  void Read() {
    reading_ = true;
    rpc_->Read(&in_, &read_);
  }
  void ReadOn() {
    if (!reading_ && !read_over_ && !held_ && inbox_bytes_ < kMaxInboxBytes) Read();
  }

  // Queue's thread.
  void OnEvent(Kind kind, bool ok) {
    bool tell = false, done = false;
    {
      const std::lock_guard lock(mutex_);
      switch (kind) {
        case Kind::kRead:
          tell = OnRead(ok);
          break;
        case Kind::kWrite:
          tell = OnWrite(ok);
          break;
        case Kind::kFinish:
          ended_ = true;
          tell = !closing_;
          break;
      }
      tell = tell && !std::exchange(announced_, announced_ || tell);
      done = ended_ && !writing_;
    }
    const std::shared_ptr<Stream> self = self_;
    if (kind == Kind::kRead && ok) client_.OnHeard();
    if (tell) client_.Announce(self);
    if (!done) return;
    self_.reset();
    client_.Died(this);
  }
  bool OnRead(bool ok) {
    reading_ = false;
    if (!ok) {
      read_over_ = true;
      rpc_->Finish(&status_, &finish_);
      return false;
    }
    if (closing_) {
      in_.Clear();
    } else {
      inbox_bytes_ += in_.Length();
      inbox_.emplace_back().Swap(&in_);
    }
    ReadOn();
    return !closing_;
  }
  bool OnWrite(bool ok) {
    writing_ = false;
    broken_ |= !ok;
    if (!out_.empty()) {
      queued_ -= out_.front().bytes;
      out_.pop_front();
    }
    Pump();
    if (closing_ || !room_wanted_ || queued_ > room_below_) return false;
    room_wanted_ = false;
    return room_ = true;
  }

  GrpcPickerClient& client_;
  PickerListener* listener_;           // loop thread
  std::vector<ByteBuffer> delivered_;  // loop thread
  std::shared_ptr<Stream> self_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<ByteBuffer, ByteBuffer>> rpc_;
  Tag read_{*this, Kind::kRead}, write_{*this, Kind::kWrite}, finish_{*this, Kind::kFinish};
  ByteBuffer in_;
  grpc::Status status_;

  mutable std::mutex mutex_;  // guards what follows
  std::deque<Out> out_;       // the front is being written
  std::vector<ByteBuffer> inbox_;
  size_t queued_ = 0, inbox_bytes_ = 0, room_below_ = 0;
  bool writing_ = false, half_closed_ = false, broken_ = false;
  bool reading_ = false, read_over_ = false, held_ = false;
  bool closing_ = false, cancelled_ = false, ended_ = false, told_end_ = false, asked_ = false;
  bool announced_ = false, room_wanted_ = false, room_ = false;
};

// Any answer is a sign of life.
class GrpcPickerClient::ProbeCall final : public Event {
 public:
  ProbeCall(GrpcPickerClient& client, Duration timeout) : client_(client), stub_(channel()) {
    const grpc::Slice nothing;
    const ByteBuffer request(&nothing, 1);
    context_.set_deadline(std::chrono::system_clock::now() + timeout);
    reader_ = stub_.PrepareUnaryCall(&context_, kCheck, request, &client.queue_);
    reader_->StartCall();
    reader_->Finish(&answer_, &status_, this);
  }
  void OnEvent(bool) override {
    const grpc::StatusCode code = status_.error_code();
    client_.OnProbed(code != grpc::StatusCode::DEADLINE_EXCEEDED &&
                     code != grpc::StatusCode::UNAVAILABLE && code != grpc::StatusCode::CANCELLED);
    delete this;
  }

 private:
  std::shared_ptr<grpc::Channel> channel() const { return client_.options_.channel; }
  GrpcPickerClient& client_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<ByteBuffer>> reader_;
  ByteBuffer answer_;
  grpc::Status status_;
};

GrpcPickerClient::GrpcPickerClient(PickerClientOptions options) : options_(std::move(options)) {
  OnHeard();
  Set(vain_, TimePoint::min());
  alive_ = 1;  // the watch
  WatchChannel();
  thread_ = std::thread([this] { Run(); });
}

void GrpcPickerClient::Run() {
  pthread_setname_np(pthread_self(), "picker");
  void* tag = nullptr;
  for (bool ok = false; queue_.Next(&tag, &ok);) static_cast<Event*>(tag)->OnEvent(ok);
}

void GrpcPickerClient::Stop() {
  if (!thread_.joinable()) return;
  {
    std::unique_lock lock(mutex_);
    stopped_ = true;
    // Streams end under their own locks, and on the queue's thread under ours.
    std::vector<std::shared_ptr<Stream>> left;
    for (Stream* stream : streams_) {
      if (auto alive = stream->weak_from_this().lock()) left.push_back(std::move(alive));
    }
    lock.unlock();
    for (const auto& stream : left) stream->BreakOff();
    lock.lock();
    none_alive_.wait(lock, [this] { return alive_ == 0; });
  }
  queue_.Shutdown();
  thread_.join();
  announced_.clear();
}

std::shared_ptr<PickerStream> GrpcPickerClient::Open(PickerListener& listener, ByteBuffer message,
                                                     size_t bytes, Next next) {
  // Not make_shared: what lingers in a weak_ptr would keep the whole.
  std::shared_ptr<Stream> stream(new Stream(*this, listener));
  if (!stream->Start(std::move(message), bytes, next)) return nullptr;
  return stream;
}

// gRPC makes progress on an idle channel only while somebody waits for it.
void GrpcPickerClient::WatchChannel() {
  state_ = options_.channel->GetState(/*try_to_connect=*/true);
  const bool ready = state_ == GRPC_CHANNEL_READY;
  if (ready && !ready_.exchange(ready)) OnHeard();
  ready_ = ready;
  options_.channel->NotifyOnStateChange(state_, std::chrono::system_clock::now() + kWatchEvery,
                                        &queue_, &watch_);
}

void GrpcPickerClient::OnChannelState() {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) {
      if (--alive_ == 0) none_alive_.notify_all();
      return;
    }
  }
  WatchChannel();
}

void GrpcPickerClient::Probe() {
  if (probing_.exchange(true)) return;
  if (!Born(nullptr)) return;
  Set(probed_, SystemClock().Now());
  probe_due_ = true;
  Ask(nullptr);
}

void GrpcPickerClient::Ask(std::shared_ptr<Stream> stream) {
  const std::lock_guard lock(mutex_);
  asked_.push_back(std::move(stream));
  if (!std::exchange(kicked_, true)) alarm_.Set(&queue_, gpr_inf_past(GPR_CLOCK_MONOTONIC), &kick_);
}

void GrpcPickerClient::Work() {
  {
    const std::lock_guard lock(mutex_);
    kicked_ = false;
    working_.swap(asked_);
  }
  for (const auto& stream : working_) {
    if (stream != nullptr) {
      stream->Work();
    } else if (probe_due_.exchange(false)) {
      new ProbeCall(*this, options_.probe_timeout);
    }
  }
  working_.clear();
}

void GrpcPickerClient::OnProbed(bool answered) {
  if (answered) {
    OnHeard();
  } else if (Get(vain_) <= Get(heard_)) {
    Set(vain_, Get(probed_));  // the first one since it was heard
  }
  probing_ = false;
  Died(nullptr);
}

TimePoint GrpcPickerClient::unanswered_since() const {
  if (Get(vain_) > Get(heard_)) return Get(vain_);
  const bool waits = probing_ && Get(probed_) > Get(heard_);
  return waits ? Get(probed_) : TimePoint::max();
}

bool GrpcPickerClient::Born(Stream* stream) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return false;
  ++alive_;
  if (stream != nullptr) streams_.insert(stream);
  return true;
}

void GrpcPickerClient::Died(Stream* stream) {
  const std::lock_guard lock(mutex_);
  if (stream != nullptr) streams_.erase(stream);
  if (--alive_ == 0) none_alive_.notify_all();
}

void GrpcPickerClient::Announce(std::shared_ptr<Stream> stream) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    announced_.push_back(std::move(stream));
    if (std::exchange(posted_, true)) return;
  }
  if (options_.post([this] { Drain(); })) return;
  const std::lock_guard lock(mutex_);
  posted_ = false;
}

void GrpcPickerClient::Drain() {
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
    delivering_.swap(announced_);
  }
  for (const auto& stream : delivering_) stream->Deliver();
  delivering_.clear();
}

void GrpcPickerClient::Linger(std::weak_ptr<Stream> stream) {
  lingering_.emplace_back(SystemClock().Now() + options_.close_patience, std::move(stream));
}

void GrpcPickerClient::OnTick() {
  Drain();
  const TimePoint now = SystemClock().Now();
  for (; !lingering_.empty() && lingering_.front().first <= now; lingering_.pop_front()) {
    if (const std::shared_ptr<Stream> stream = lingering_.front().second.lock()) stream->BreakOff();
  }
}

}  // namespace llmd::gateway
