#include "epp/ext_proc_service.h"

#include <algorithm>

namespace llmd::epp {
namespace {

constexpr unsigned kMinThreads = 2, kMaxThreads = 16;
// Calls that can come to a queue before its thread has looked.
constexpr int kWaitingCalls = 16;

}  // namespace

ExtProcService::ExtProcService(sched::Director& director, ProcessorOptions options,
                               size_t max_streams, MetricsRegistry& metrics)
    : context_{service_,       director, options, StreamMetrics(metrics), StreamGate(max_streams),
               queues_.calls()} {}

void ExtProcService::AddTo(grpc::ServerBuilder& builder) {
  builder.RegisterService(&service_);
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), kMinThreads, kMaxThreads);
  queues_.AddTo(builder, count);
}

void ExtProcService::Start(HealthService* health) {
  queues_.Start([this, health](grpc::ServerCompletionQueue& queue) {
    for (int i = 0; i < kWaitingCalls; ++i) Stream::Accept(context_, queue);
    if (health != nullptr) health->Accept(queue, queues_.calls());
  });
}

}  // namespace llmd::epp
