#include "epp/ext_proc_service.h"

#include <deque>
#include <mutex>

#include "epp/convert.h"

namespace llmd::epp {
namespace {

using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;

// Reads one message at a time and writes answers in order. gRPC allows one write in flight, so
// answers wait in a queue; it is bounded by the protocol: a message is read only once the one
// before has been answered to the queue, and reading pauses while kMaxQueued answers wait for the
// peer.
class Stream final : public grpc::ServerBidiReactor<ProcessingRequest, ProcessingResponse>,
                     public AnswerSink {
 public:
  explicit Stream(Gauge& inflight) : inflight_(inflight) { inflight_.Add(1); }

  // The stream lives until gRPC is done with it, and as long as an answer is under way to it.
  static Stream* Start(sched::Director& director, ProcessorOptions options, Gauge& inflight) {
    auto stream = std::make_shared<Stream>(inflight);
    stream->self_ = stream;
    stream->processor_ = std::make_shared<Processor>(director, stream, options);
    stream->StartRead(&stream->request_);
    return stream.get();
  }

  void Emit(const Answer& answer) override {
    auto message = std::make_unique<ProcessingResponse>();
    FromAnswer(answer, *message);
    std::lock_guard lock(mutex_);
    if (finished_) return;
    immediate_ |= answer.kind == Answer::Kind::kImmediate;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) StartWrite(queue_.front().get());
  }

  void OnReadDone(bool ok) override {
    if (!ok) return EndOfInput();
    Dispatch(request_, *processor_);
    request_.Clear();
    std::lock_guard lock(mutex_);
    if (finished_) return;
    if (queue_.size() > kMaxQueued) {
      read_paused_ = true;
    } else {
      StartRead(&request_);
    }
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    queue_.pop_front();
    if (finished_) return;
    if (!ok) return FinishLocked(grpc::Status::CANCELLED);
    if (!queue_.empty()) {
      StartWrite(queue_.front().get());
    } else if (input_ended_ || immediate_) {
      FinishLocked(grpc::Status::OK);
    }
    if (read_paused_ && !finished_ && queue_.size() <= kMaxQueued / 2) {
      read_paused_ = false;
      StartRead(&request_);
    }
  }

  void OnCancel() override {
    processor_->Close();
    std::lock_guard lock(mutex_);
    if (!finished_ && queue_.empty()) FinishLocked(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    processor_->Close();
    inflight_.Add(-1);
    const std::shared_ptr<Stream> last = std::move(self_);
    std::lock_guard lock(mutex_);
    finished_ = true;
  }

 private:
  static constexpr size_t kMaxQueued = 64;

  void EndOfInput() {
    processor_->Close();
    std::lock_guard lock(mutex_);
    input_ended_ = true;
    if (!finished_ && queue_.empty()) FinishLocked(grpc::Status::OK);
  }

  void FinishLocked(const grpc::Status& status) {
    finished_ = true;
    Finish(status);
  }

  std::shared_ptr<Stream> self_;
  std::shared_ptr<Processor> processor_;
  Gauge& inflight_;
  ProcessingRequest request_;
  std::mutex mutex_;
  std::deque<std::unique_ptr<ProcessingResponse>> queue_;  // the front is being written
  bool input_ended_ = false, immediate_ = false, finished_ = false, read_paused_ = false;
};

}  // namespace

ExtProcService::ExtProcService(sched::Director& director, ProcessorOptions options,
                               MetricsRegistry& metrics)
    : director_(director),
      options_(options),
      inflight_(metrics.AddGauge("llm_d_epp_extproc_streams_inflight", "Open ext_proc streams.")) {}

grpc::ServerBidiReactor<ProcessingRequest, ProcessingResponse>* ExtProcService::Process(
    grpc::CallbackServerContext*) {
  return Stream::Start(director_, options_, inflight_);
}

}  // namespace llmd::epp
