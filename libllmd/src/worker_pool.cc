#include "llmd/worker_pool.h"

#include <pthread.h>

#include <system_error>
#include <thread>
#include <vector>

#include "llmd/queue.h"

namespace llmd {
namespace {

// A worker looks again after this long; Close wakes it at once, so this only bounds the wait.
constexpr Duration kLongestWait = std::chrono::seconds(60);
constexpr size_t kMaxNameBytes = 15;

}  // namespace

struct WorkerPool::Impl {
  explicit Impl(const Options& options) : queue(options.max_queued) {}

  void Work(const std::string& name) {
    SetThreadName(name);
    while (!queue.drained()) {
      if (auto job = queue.PopUntil(SystemClock().Now() + kLongestWait)) (*job)();
    }
  }

  BoundedQueue<std::function<void()>> queue;
  std::mutex stop_mutex;
  std::vector<std::thread> workers;
  size_t thread_count = 0;
};

StatusOr<std::unique_ptr<WorkerPool>> WorkerPool::Create(const Options& options) {
  if (options.threads == 0 || options.max_queued == 0) {
    return InvalidArgument("worker pool '" + options.name +
                           "': threads and max_queued must be at least 1");
  }
  std::unique_ptr<WorkerPool> pool(new WorkerPool(std::make_unique<Impl>(options)));
  Impl* impl = pool->impl_.get();
  impl->thread_count = options.threads;
  try {
    for (size_t i = 0; i < options.threads; ++i) {
      impl->workers.emplace_back(&Impl::Work, impl, options.name + "/" + std::to_string(i));
    }
  } catch (const std::system_error& e) {
    return ResourceExhausted("worker pool '" + options.name +
                             "': cannot start a thread: " + e.what());
  }
  return pool;
}

WorkerPool::WorkerPool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

WorkerPool::~WorkerPool() {
  Stop();
}

Status WorkerPool::Submit(std::function<void()> job) {
  if (impl_->queue.TryPush(std::move(job))) return OkStatus();
  if (impl_->queue.closed()) return Cancelled("the worker pool has stopped");
  return ResourceExhausted("the worker pool's queue is full (" +
                           std::to_string(impl_->queue.capacity()) + " jobs)");
}

void WorkerPool::Stop() {
  impl_->queue.Close();
  const std::lock_guard lock(impl_->stop_mutex);
  for (std::thread& worker : impl_->workers) worker.join();
  impl_->workers.clear();
}

size_t WorkerPool::queued() const {
  return impl_->queue.size();
}
size_t WorkerPool::threads() const {
  return impl_->thread_count;
}

void SetThreadName(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, kMaxNameBytes).c_str());
}

}  // namespace llmd
