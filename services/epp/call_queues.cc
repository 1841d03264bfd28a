#include "epp/call_queues.h"

#include <pthread.h>

namespace llmd::epp {
namespace {

// Calls end at once when their server has shut down.
constexpr std::chrono::seconds kPatience{10};

void Serve(grpc::ServerCompletionQueue& queue) {
  void* tag = nullptr;
  for (bool ok = false; queue.Next(&tag, &ok);) static_cast<CallTag*>(tag)->OnEvent(ok);
}

void ServeNowAndThen(grpc::ServerCompletionQueue& queue, std::chrono::milliseconds every) {
  void* tag = nullptr;
  for (bool ok = false;;) {
    switch (queue.AsyncNext(&tag, &ok, std::chrono::system_clock::time_point())) {
      case grpc::CompletionQueue::GOT_EVENT:
        static_cast<CallTag*>(tag)->OnEvent(ok);
        break;
      case grpc::CompletionQueue::TIMEOUT:
        std::this_thread::sleep_for(every);
        break;
      case grpc::CompletionQueue::SHUTDOWN:
        return;
    }
  }
}

}  // namespace

void LiveCalls::Change(std::ptrdiff_t by) {
  const std::lock_guard lock(mutex_);
  count_ += by;
  if (count_ == 0) none_.notify_all();
}

bool LiveCalls::WaitNone(std::chrono::seconds patience) {
  std::unique_lock lock(mutex_);
  return none_.wait_for(lock, patience, [this] { return count_ == 0; });
}

void CallQueues::AddTo(grpc::ServerBuilder& builder, unsigned count) {
  for (unsigned i = 0; i < count; ++i) queues_.push_back(builder.AddCompletionQueue());
}

void CallQueues::Start(const std::function<void(grpc::ServerCompletionQueue&)>& accept) {
  for (const auto& queue : queues_) {
    accept(*queue);
    threads_.emplace_back([this, &queue] {
      pthread_setname_np(pthread_self(), thread_name_.c_str());
      if (every_ > std::chrono::milliseconds::zero()) return ServeNowAndThen(*queue, every_);
      Serve(*queue);
    });
  }
}

void CallQueues::Stop() {
  if (!threads_.empty()) calls_.WaitNone(kPatience);
  for (const auto& queue : queues_) queue->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  if (threads_.empty()) {
    for (const auto& queue : queues_) Serve(*queue);  // a queue must be empty when it goes
  }
  threads_.clear();
  queues_.clear();
}

}  // namespace llmd::epp
