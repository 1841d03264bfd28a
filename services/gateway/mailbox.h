// Hands values from any thread to one coroutine on a loop thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "llmd/http/task.h"

namespace llmd::gateway {

// Held by shared_ptr: senders may outlive the receiver. Bounded by the protocol of its user (a few
// values).
template <typename T>
class Mailbox : public std::enable_shared_from_this<Mailbox<T>> {
 public:
  explicit Mailbox(boost::asio::io_context& loop) : loop_(loop), timer_(loop) {}

  // Any thread.
  void Send(T value) {
    bool unexpected = false;
    {
      std::lock_guard lock(mutex_);
      values_.push_back(std::move(value));
      unexpected = !waiting_ && watched_;
    }
    if (unexpected) {
      boost::asio::post(loop_, [self = this->shared_from_this()] {
        const std::function<void()> watch = self->watch_;  // may be cleared by its own call
        if (watch) watch();
      });
    }
    Wake();
  }
  // Nothing more will come; a waiting receiver gets nullopt once the values are used up. Any
  // thread, idempotent.
  void Close() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    Wake();
  }

  // `callback` is called after a value came that nobody waited for; it may be gone by then. Null to
  // clear it. Loop thread.
  void Watch(std::function<void()> callback) {
    watch_ = std::move(callback);
    std::lock_guard lock(mutex_);
    watched_ = watch_ != nullptr;
  }
  // What has come already, without waiting, when `wanted` says so of it.
  template <typename Wanted>
  std::optional<T> TryReceive(const Wanted& wanted) {
    std::lock_guard lock(mutex_);
    if (values_.empty() || !wanted(values_.front())) return std::nullopt;
    std::optional<T> value(std::move(values_.front()));
    values_.pop_front();
    return value;
  }
  // Loop thread, one receiver at a time.
  http::Task<std::optional<T>> Receive() {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (!values_.empty()) {
          std::optional<T> value(std::move(values_.front()));
          values_.pop_front();
          co_return value;
        }
        if (closed_) co_return std::nullopt;
        waiting_ = true;
        timer_.expires_at(boost::asio::steady_timer::time_point::max());
      }
      boost::system::error_code ignored;
      co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
    }
  }

 private:
  void Wake() {
    {
      std::lock_guard lock(mutex_);
      if (!waiting_) return;
      waiting_ = false;
    }
    boost::asio::post(loop_, [self = this->shared_from_this()] { self->timer_.cancel(); });
  }

  boost::asio::io_context& loop_;
  std::mutex mutex_;
  std::deque<T> values_;
  bool closed_ = false, waiting_ = false, watched_ = false;
  boost::asio::steady_timer timer_;  // loop thread only
  std::function<void()> watch_;      // loop thread only
};

}  // namespace llmd::gateway
