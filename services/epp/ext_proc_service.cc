#include "epp/ext_proc_service.h"

#include <algorithm>

namespace llmd::epp {
namespace {

// One thread serves some 10,000 small exchanges a second; a second one makes each dearer, because
// whoever reads a connection hands to the other what belongs to its calls.
constexpr unsigned kCoresPerThread = 4, kMaxThreads = 16;
constexpr size_t kReaders = 2;
// Calls that can come to a queue before its thread has looked.
constexpr int kWaitingCalls = 16;

std::unique_ptr<WorkerPool> MakeReaders() {
  auto pool = WorkerPool::Create({.name = "large-body", .threads = kReaders});
  return pool.ok() ? std::move(*pool) : nullptr;
}

ProcessorOptions With(ProcessorOptions options, WorkerPool* readers) {
  if (readers != nullptr) {
    options.offload = [readers](std::function<void()> job) {
      return readers->Submit(std::move(job)).ok();
    };
  }
  return options;
}

}  // namespace

ExtProcService::ExtProcService(sched::Director& director, ProcessorOptions options,
                               size_t max_streams, unsigned threads, MetricsRegistry& metrics)
    : threads_(threads > 0 ? threads
                           : std::clamp(std::thread::hardware_concurrency() / kCoresPerThread, 1u,
                                        kMaxThreads)),
      readers_(MakeReaders()),
      context_{service_,
               director,
               With(std::move(options), readers_.get()),
               StreamMetrics(metrics),
               StreamGate(max_streams),
               queues_.calls()} {}

void ExtProcService::AddTo(grpc::ServerBuilder& builder) {
  builder.RegisterService(&service_);
  queues_.AddTo(builder, threads_);
}

void ExtProcService::Start(HealthService* health) {
  queues_.Start([this, health](grpc::ServerCompletionQueue& queue) {
    for (int i = 0; i < kWaitingCalls; ++i) Stream::Accept(context_, queue);
    if (health != nullptr) health->Accept(queue, queues_.calls());
  });
}

}  // namespace llmd::epp
