// The ext_proc service over gRPC: one reactor a stream, no thread of its own (gRPC's callback
// threads run the events).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"
#include "epp/processor.h"
#include "llmd/metrics.h"

namespace llmd::epp {

// The series of `--enable-grpc-stream-metrics` (endpoint-picker.md §6.2), always on.
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

class ExtProcService final
    : public envoy::service::ext_proc::v3::ExternalProcessor::CallbackService {
 public:
  // `director` must outlive the gRPC server. More than `max_streams` at once are answered 429, one
  // by one, and ended.
  ExtProcService(sched::Director& director, ProcessorOptions options, size_t max_streams,
                 MetricsRegistry& metrics);

  grpc::ServerBidiReactor<envoy::service::ext_proc::v3::ProcessingRequest,
                          envoy::service::ext_proc::v3::ProcessingResponse>*
  Process(grpc::CallbackServerContext* context) override;

  StreamGate& gate() { return gate_; }

 private:
  sched::Director& director_;
  const ProcessorOptions options_;
  StreamMetrics metrics_;
  StreamGate gate_;
};

}  // namespace llmd::epp
