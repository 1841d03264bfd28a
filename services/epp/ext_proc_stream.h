// One ext_proc call on a completion queue: reads a message at a time, feeds it to the processor and
// writes its answers in order. Messages stay bytes; convert.h reads and writes them in place.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"
#include "epp/call_queues.h"
#include "epp/processor.h"
#include "llmd/metrics.h"

namespace llmd::epp {

// The series of `--enable-grpc-stream-metrics` (docs/metrics.md), always on.
struct StreamMetrics {
  explicit StreamMetrics(MetricsRegistry& registry);
  Counter& Total(grpc::StatusCode code);

  Gauge& inflight;
  Histogram& duration;

 private:
  Counter &ok_, &cancelled_, &invalid_;  // extproc_streams_total{code}
};

// How many streams are open, and whether new ones are welcome. Thread-safe.
class StreamGate {
 public:
  // `max_open` streams; one more is refused.
  explicit StreamGate(size_t max_open) : max_open_(max_open) {}
  enum class Verdict { kWelcome, kFull, kClosed };
  // Counts the stream whatever the verdict.
  Verdict Enter();
  void Leave();
  // From now on new streams get kClosed.
  void Close();
  // Waits until no stream is open; false when `deadline` passes first.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline);

 private:
  const size_t max_open_;
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t open_ = 0;      // guarded by mutex_
  bool closed_ = false;  // guarded by mutex_
};

using RawService = envoy::service::ext_proc::v3::ExternalProcessor::WithRawMethod_Process<
    envoy::service::ext_proc::v3::ExternalProcessor::Service>;

// What all streams share. Outlives them.
struct StreamContext {
  RawService& service;
  sched::Director& director;
  const ProcessorOptions options;
  StreamMetrics metrics;
  StreamGate gate;
  LiveCalls& calls;
};

// gRPC allows one write in flight, so answers wait in a queue. It is bounded: a message is read
// only once the one before has been answered to the queue, reading pauses while kMaxQueued answers
// wait for the peer, and nothing is read after a refusal.
//
// Its events come from its queue's thread; answers may come from any. It lives until gRPC owes it
// no event, and as long as an answer is under way to it.
class Stream final : public AnswerSink, public std::enable_shared_from_this<Stream> {
 public:
  // Takes the next call that comes to `queue`, and after it, by itself, the one behind.
  static void Accept(StreamContext& context, grpc::ServerCompletionQueue& queue);

  Stream(StreamContext& context, grpc::ServerCompletionQueue& queue)
      : context_(context), queue_(queue), alive_(context.calls), rpc_(&rpc_context_) {}
  void Emit(const Answer& answer) override;
  void Abort(const Status& status) override;
  void EndAnswers() override;

 private:
  static constexpr size_t kMaxQueued = 64;
  enum class Event { kCall, kRead, kWrite, kFinish, kDone };
  struct Tag final : CallTag {
    Tag(Stream& stream, Event event) : stream(stream), event(event) {}
    void OnEvent(bool ok) override { stream.OnEvent(event, ok); }
    Stream& stream;
    const Event event;
  };

  void OnEvent(Event event, bool ok);

  void OnCall();
  void OnRead(bool ok);
  void OnWrite(bool ok);
  void OnDone();
  void Retire(bool ok);
  void ReadLocked();
  void WriteLocked();
  void FinishLocked(const grpc::Status& status);
  CallTag* TagOf(Event event) { return &tags_[static_cast<size_t>(event)]; }

  StreamContext& context_;
  grpc::ServerCompletionQueue& queue_;
  const LiveCalls::Member alive_;
  grpc::ServerContext rpc_context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> rpc_;
  Tag tags_[5] = {{*this, Event::kCall},
                  {*this, Event::kRead},
                  {*this, Event::kWrite},
                  {*this, Event::kFinish},
                  {*this, Event::kDone}};
  std::shared_ptr<Stream> self_;
  std::shared_ptr<Processor> processor_;
  std::chrono::steady_clock::time_point started_{};
  grpc::ByteBuffer request_;
  std::mutex mutex_;                      // guards what follows
  std::deque<grpc::ByteBuffer> answers_;  // the front is being written
  size_t owed_ = 0;                       // events to come
  // immediate_: no answer follows those that wait.
  bool input_ended_ = false, immediate_ = false, finished_ = false, read_paused_ = false;
  grpc::StatusCode code_ = grpc::StatusCode::CANCELLED;
};

}  // namespace llmd::epp
