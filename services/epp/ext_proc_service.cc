#include "epp/ext_proc_service.h"

#include <pthread.h>

#include <algorithm>

namespace llmd::epp {
namespace {

constexpr unsigned kMinThreads = 2, kMaxThreads = 16;
// Calls that can come to a queue before its thread has looked.
constexpr int kWaitingCalls = 16;

void Serve(grpc::ServerCompletionQueue& queue) {
  void* tag = nullptr;
  for (bool ok = false; queue.Next(&tag, &ok);) Stream::OnEvent(tag, ok);
}

}  // namespace

ExtProcService::ExtProcService(sched::Director& director, ProcessorOptions options,
                               size_t max_streams, MetricsRegistry& metrics)
    : context_{service_, director, options, StreamMetrics(metrics), StreamGate(max_streams)} {}

void ExtProcService::AddTo(grpc::ServerBuilder& builder) {
  builder.RegisterService(&service_);
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), kMinThreads, kMaxThreads);
  for (unsigned i = 0; i < count; ++i) queues_.push_back(builder.AddCompletionQueue());
}

void ExtProcService::Start() {
  for (const auto& queue : queues_) {
    for (int i = 0; i < kWaitingCalls; ++i) Stream::Accept(context_, *queue);
    threads_.emplace_back([&queue] {
      pthread_setname_np(pthread_self(), "ext-proc");
      Serve(*queue);
    });
  }
}

void ExtProcService::Stop() {
  for (const auto& queue : queues_) queue->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  if (threads_.empty()) {
    for (const auto& queue : queues_) Serve(*queue);  // a queue must be empty when it goes
  }
  threads_.clear();
  queues_.clear();
}

}  // namespace llmd::epp
