#include "epp/call_queues.h"

#include <pthread.h>

namespace llmd::epp {
namespace {

void Serve(grpc::ServerCompletionQueue& queue) {
  void* tag = nullptr;
  for (bool ok = false; queue.Next(&tag, &ok);) static_cast<CallTag*>(tag)->OnEvent(ok);
}

}  // namespace

void CallQueues::AddTo(grpc::ServerBuilder& builder, unsigned count) {
  for (unsigned i = 0; i < count; ++i) queues_.push_back(builder.AddCompletionQueue());
}

void CallQueues::Start(const std::function<void(grpc::ServerCompletionQueue&)>& accept) {
  for (const auto& queue : queues_) {
    accept(*queue);
    threads_.emplace_back([this, &queue] {
      pthread_setname_np(pthread_self(), thread_name_.c_str());
      Serve(*queue);
    });
  }
}

void CallQueues::Stop() {
  for (const auto& queue : queues_) queue->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  if (threads_.empty()) {
    for (const auto& queue : queues_) Serve(*queue);  // a queue must be empty when it goes
  }
  threads_.clear();
  queues_.clear();
}

}  // namespace llmd::epp
