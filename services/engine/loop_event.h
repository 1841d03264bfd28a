// A flag another thread sets and a coroutine on a loop thread waits for: how work done elsewhere
// wakes a handler.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "llmd/http/task.h"
#include "llmd/worker_pool.h"

namespace llmd::services {

// Set is thread-safe; Wait belongs to one coroutine on `loop`. Held by shared_ptr, for a late Set
// may outlive the handler.
class LoopEvent : public std::enable_shared_from_this<LoopEvent> {
 public:
  explicit LoopEvent(boost::asio::io_context& loop);
  void Set();
  // Returns once Set was called since the last Wait.
  http::Task<void> Wait();

 private:
  boost::asio::io_context& loop_;
  boost::asio::steady_timer timer_;  // never expires; cancelled to wake
  std::atomic<bool> set_{false};
};

// Runs `job` on the pool and waits for it. RESOURCE_EXHAUSTED when the pool's queue is full: the
// job did not run. The job must own what it touches.
http::Task<Status> RunOnWorker(WorkerPool& pool, std::shared_ptr<LoopEvent> event,
                               std::function<void()> job);

}  // namespace llmd::services
