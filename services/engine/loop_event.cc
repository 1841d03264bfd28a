#include "engine/loop_event.h"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace llmd::services {

LoopEvent::LoopEvent(boost::asio::io_context& loop)
    : loop_(loop), timer_(loop, boost::asio::steady_timer::time_point::max()) {}

void LoopEvent::Set() {
  if (set_.exchange(true)) return;
  boost::asio::post(loop_, [self = shared_from_this()] { self->timer_.cancel(); });
}

http::Task<void> LoopEvent::Wait() {
  const std::shared_ptr<LoopEvent> keep = shared_from_this();
  boost::system::error_code ignored;
  // A cancel left over from an earlier Set may end the wait early, so the flag decides.
  while (!set_.exchange(false)) {
    auto token = boost::asio::redirect_error(boost::asio::use_awaitable, ignored);
    co_await timer_.async_wait(token);
  }
}

http::Task<Status> RunOnWorker(WorkerPool& pool, std::shared_ptr<LoopEvent> event,
                               std::function<void()> job) {
  auto done = std::make_shared<std::atomic<bool>>(false);
  std::function<void()> work = [job = std::move(job), done, event] {
    job();
    done->store(true, std::memory_order_release);
    event->Set();
  };
  Status submitted = pool.Submit(std::move(work));
  if (!submitted.ok()) co_return submitted;
  while (!done->load(std::memory_order_acquire)) co_await event->Wait();
  co_return OkStatus();
}

}  // namespace llmd::services
