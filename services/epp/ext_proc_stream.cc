#include "epp/ext_proc_stream.h"

#include "epp/convert.h"

namespace llmd::epp {
namespace {

using Owner = std::shared_ptr<const void>;

void Release(void* owner) {
  delete static_cast<Owner*>(owner);
}

grpc::ByteBuffer ToBuffer(const Answer& answer) {
  static thread_local WireWriter writer;
  writer.Reset();
  WriteAnswer(answer, writer);
  grpc::Slice slices[2] = {grpc::Slice(writer.View().data(), writer.View().size())};
  if (writer.size() == writer.View().size()) return grpc::ByteBuffer(slices, 1);
  // gRPC takes bytes to write by a pointer that is not const, and only reads them.
  slices[1] = grpc::Slice(const_cast<char*>(answer.body.data()), answer.body.size(), &Release,
                          new Owner(answer.body_owner));
  return grpc::ByteBuffer(slices, 2);
}

// Feeds the message to the processor from where gRPC put it.
void Feed(const grpc::ByteBuffer& message, Processor& processor) {
  static thread_local std::vector<grpc::Slice> slices;
  static thread_local std::vector<std::string_view> pieces;
  pieces.clear();
  const bool whole = message.Dump(&slices).ok();
  for (const grpc::Slice& slice : slices)
    pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  if (!whole || !Dispatch(pieces, processor)) processor.OnMalformed();
  slices.clear();
}

const std::vector<double> kDurations = {.005, .025, .05, .1,  .5,  1,   2,    5,
                                        10,   30,   60,  120, 300, 600, 1800, 3600};

Counter& Ended(MetricsRegistry& registry, const char* code) {
  return registry.AddCounter("llm_d_epp_extproc_streams_total", "Ended ext_proc streams",
                             {{"code", code}});
}

}  // namespace

void Stream::Accept(StreamContext& context, grpc::ServerCompletionQueue& queue) {
  auto stream = std::make_shared<Stream>(context, queue);
  stream->self_ = stream;
  stream->rpc_context_.AsyncNotifyWhenDone(stream->TagOf(Event::kDone));
  context.service.RequestProcess(&stream->rpc_context_, &stream->rpc_, &queue, &queue,
                                 stream->TagOf(Event::kCall));
}

void Stream::OnEvent(Event event, bool ok) {
  const std::shared_ptr<Stream> stream = self_;
  switch (event) {
    case Event::kCall:
      if (ok) return OnCall();
      self_.reset();  // the server is going down; nothing else is owed
      return;
    case Event::kRead:
      OnRead(ok);
      break;
    case Event::kWrite:
      OnWrite(ok);
      break;
    case Event::kFinish:
      break;
    case Event::kDone:
      OnDone();
      break;
  }
  Retire(event != Event::kFinish || ok);
}

void Stream::OnCall() {
  Accept(context_, queue_);
  started_ = std::chrono::steady_clock::now();
  context_.metrics.inflight.Add(1);
  processor_ = std::make_shared<Processor>(context_.director, weak_from_this(), context_.options);
  // The proxy's own words (grpc_service.initial_metadata): no client can write them.
  const auto pool = rpc_context_.client_metadata().find("x-llm-d-pool");
  if (pool != rpc_context_.client_metadata().end())
    processor_->OnPool(std::string(pool->second.data(), pool->second.size()));
  {
    std::lock_guard lock(mutex_);
    owed_ = 1;  // kDone
  }
  switch (context_.gate.Enter()) {
    case StreamGate::Verdict::kWelcome: {
      std::lock_guard lock(mutex_);
      return ReadLocked();
    }
    case StreamGate::Verdict::kFull:
      return processor_->Refuse({429, "too many open requests", "rejected-saturated", 1});
    case StreamGate::Verdict::kClosed:
      return processor_->Refuse({503, "shutting down", "rejected-shutting-down", 1});
  }
}

void Stream::Emit(const Answer& answer) {
  grpc::ByteBuffer message = ToBuffer(answer);
  std::lock_guard lock(mutex_);
  if (finished_ || immediate_) return;  // nothing may follow an immediate answer
  immediate_ |= answer.kind == Answer::Kind::kImmediate;
  answers_.emplace_back().Swap(&message);
  if (answers_.size() == 1) WriteLocked();
}

void Stream::Abort(const Status& status) {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  FinishLocked(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, status.message()));
}

void Stream::EndAnswers() {
  std::lock_guard lock(mutex_);
  immediate_ = true;
  if (!finished_ && answers_.empty()) FinishLocked(grpc::Status::OK);
}

void Stream::OnRead(bool ok) {
  if (!ok) {
    processor_->Close();
    std::lock_guard lock(mutex_);
    input_ended_ = true;
    if (!finished_ && answers_.empty()) FinishLocked(grpc::Status::OK);
    return;
  }
  Feed(request_, *processor_);
  request_.Clear();
  std::lock_guard lock(mutex_);
  if (finished_ || immediate_) return;
  if (answers_.size() > kMaxQueued) {
    read_paused_ = true;
  } else {
    ReadLocked();
  }
}

void Stream::OnWrite(bool ok) {
  std::lock_guard lock(mutex_);
  answers_.pop_front();
  if (finished_) return;
  if (!ok) return FinishLocked(grpc::Status::CANCELLED);
  if (!answers_.empty()) {
    WriteLocked();
  } else if (input_ended_ || immediate_) {
    FinishLocked(grpc::Status::OK);
  }
  if (read_paused_ && !finished_ && answers_.size() <= kMaxQueued / 2) {
    read_paused_ = false;
    ReadLocked();
  }
}

// The call is over on gRPC's side: by our Finish, or because the peer left.
void Stream::OnDone() {
  if (!rpc_context_.IsCancelled()) return;
  processor_->Close();
  std::lock_guard lock(mutex_);
  if (!finished_ && answers_.empty()) FinishLocked(grpc::Status::CANCELLED);
}

void Stream::ReadLocked() {
  ++owed_;
  rpc_.Read(&request_, TagOf(Event::kRead));
}

void Stream::WriteLocked() {
  ++owed_;
  rpc_.Write(answers_.front(), TagOf(Event::kWrite));
}

void Stream::FinishLocked(const grpc::Status& status) {
  finished_ = true;
  code_ = status.error_code();
  ++owed_;
  rpc_.Finish(status, TagOf(Event::kFinish));
}

// One event less is owed; with the last the stream is over.
void Stream::Retire(bool ok) {
  grpc::StatusCode code;
  {
    std::lock_guard lock(mutex_);
    if (!ok) code_ = grpc::StatusCode::CANCELLED;
    if (--owed_ > 0) return;
    code = code_;
  }
  processor_->Close();
  context_.metrics.inflight.Add(-1);
  context_.metrics.duration.Observe(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count());
  context_.metrics.Total(code).Add();
  context_.gate.Leave();
  self_.reset();
}

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

}  // namespace llmd::epp
