#include "epp/ext_proc_service.h"

#include <chrono>
#include <deque>

#include "epp/convert.h"

namespace llmd::epp {
namespace {

using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;

// Reads one message at a time and writes answers in order. gRPC allows one write in flight, so
// answers wait in a queue. It is bounded: a message is read only once the one before has been
// answered to the queue, reading pauses while kMaxQueued answers wait for the peer, and nothing is
// read after a refusal.
class Stream final : public grpc::ServerBidiReactor<ProcessingRequest, ProcessingResponse>,
                     public AnswerSink {
 public:
  Stream(StreamMetrics& metrics, StreamGate& gate) : metrics_(metrics), gate_(gate) {
    metrics_.inflight.Add(1);
  }

  // The stream lives until gRPC is done with it, and as long as an answer is under way to it.
  static Stream* Start(sched::Director& director, ProcessorOptions options, StreamMetrics& metrics,
                       StreamGate& gate) {
    auto stream = std::make_shared<Stream>(metrics, gate);
    stream->self_ = stream;
    stream->processor_ = std::make_shared<Processor>(director, stream, options);
    switch (gate.Enter()) {
      case StreamGate::Verdict::kWelcome:
        stream->StartRead(&stream->request_);
        break;
      case StreamGate::Verdict::kFull:
        stream->processor_->Refuse({429, "too many open requests", "rejected-saturated", 1});
        break;
      case StreamGate::Verdict::kClosed:
        stream->processor_->Refuse({503, "shutting down", "rejected-shutting-down", 1});
        break;
    }
    return stream.get();
  }

  void Emit(const Answer& answer) override {
    auto message = std::make_unique<ProcessingResponse>();
    FromAnswer(answer, *message);
    std::lock_guard lock(mutex_);
    if (finished_ || immediate_) return;  // nothing may follow an immediate answer
    immediate_ |= answer.kind == Answer::Kind::kImmediate;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) StartWrite(queue_.front().get());
  }

  void Abort(const Status& status) override {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    FinishLocked(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, status.message()));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return EndOfInput();
    Dispatch(request_, *processor_);
    request_.Clear();
    std::lock_guard lock(mutex_);
    if (finished_ || immediate_) return;
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
    Record();
    const std::shared_ptr<Stream> last = std::move(self_);
    std::lock_guard lock(mutex_);
    finished_ = true;
    queue_.clear();
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
    code_ = status.error_code();
    Finish(status);
  }

  void Record() {
    metrics_.inflight.Add(-1);
    metrics_.duration.Observe(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count());
    grpc::StatusCode code;
    {
      std::lock_guard lock(mutex_);
      code = code_;
    }
    metrics_.Total(code).Add();
    gate_.Leave();
  }

  std::shared_ptr<Stream> self_;
  std::shared_ptr<Processor> processor_;
  StreamMetrics& metrics_;
  StreamGate& gate_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  ProcessingRequest request_;
  std::mutex mutex_;                                       // guards what follows
  std::deque<std::unique_ptr<ProcessingResponse>> queue_;  // the front is being written
  bool input_ended_ = false, immediate_ = false, finished_ = false, read_paused_ = false;
  grpc::StatusCode code_ = grpc::StatusCode::CANCELLED;
};

const std::vector<double> kDurations = {.005, .025, .05, .1,  .5,  1,   2,    5,
                                        10,   30,   60,  120, 300, 600, 1800, 3600};

Counter& Ended(MetricsRegistry& registry, const char* code) {
  return registry.AddCounter("llm_d_epp_extproc_streams_total", "Ended ext_proc streams",
                             {{"code", code}});
}

}  // namespace

StreamMetrics::StreamMetrics(MetricsRegistry& r)
    : inflight(r.AddGauge("llm_d_epp_extproc_streams_inflight", "Open ext_proc streams.")),
      duration(r.AddHistogram("llm_d_epp_extproc_stream_duration_seconds",
                              "How long ext_proc streams were open", kDurations)),
      ok_(Ended(r, "OK")),
      cancelled_(Ended(r, "Canceled")),
      invalid_(Ended(r, "InvalidArgument")) {}

Counter& StreamMetrics::Total(grpc::StatusCode code) {
  if (code == grpc::StatusCode::OK) return ok_;
  return code == grpc::StatusCode::INVALID_ARGUMENT ? invalid_ : cancelled_;
}

StreamGate::Verdict StreamGate::Enter() {
  std::lock_guard lock(mutex_);
  ++open_;
  if (closed_) return Verdict::kClosed;
  return open_ > max_open_ ? Verdict::kFull : Verdict::kWelcome;
}

void StreamGate::Leave() {
  std::lock_guard lock(mutex_);
  if (--open_ == 0) idle_.notify_all();
}

void StreamGate::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

bool StreamGate::WaitIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return idle_.wait_until(lock, deadline, [this] { return open_ == 0; });
}

ExtProcService::ExtProcService(sched::Director& director, ProcessorOptions options,
                               size_t max_streams, MetricsRegistry& metrics)
    : director_(director), options_(options), metrics_(metrics), gate_(max_streams) {}

grpc::ServerBidiReactor<ProcessingRequest, ProcessingResponse>* ExtProcService::Process(
    grpc::CallbackServerContext*) {
  return Stream::Start(director_, options_, metrics_, gate_);
}

}  // namespace llmd::epp
