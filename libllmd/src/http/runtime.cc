#include "llmd/http/runtime.h"

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <future>
#include <list>
#include <thread>
#include <vector>

namespace llmd::http {
namespace asio = boost::asio;
namespace {

// How long Stop lets cancelled coroutines unwind before the loops end under them.
constexpr Duration kUnwindLimit = std::chrono::seconds(2);

// Coroutines end by value; the one exception that may come out is Asio's for a cancelled wait.
void EndOfTask(const std::exception_ptr& error) {
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const boost::system::system_error& e) {
    if (e.code() != asio::error::operation_aborted) {
      internal::CheckFailed(__FILE__, __LINE__, "no exception leaves a coroutine", e.what());
    }
  } catch (const std::exception& e) {
    internal::CheckFailed(__FILE__, __LINE__, "no exception leaves a coroutine", e.what());
  }
}

struct Loop {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  std::list<asio::cancellation_signal> tasks;  // of the loop thread
  bool stopping = false;                       // of the loop thread
  asio::steady_timer unwind_limit{context};
  std::thread thread;

  // Cancels what runs; the last task's end, or the limit, ends the loop.
  void BeginStop() {
    stopping = true;
    if (tasks.empty()) return context.stop();
    for (asio::cancellation_signal& signal : tasks) signal.emit(asio::cancellation_type::terminal);
    unwind_limit.expires_after(kUnwindLimit);
    unwind_limit.async_wait([this](const boost::system::error_code&) { context.stop(); });
  }
};

}  // namespace

struct Runtime::Impl {
  std::vector<std::unique_ptr<Loop>> loops;
  std::atomic<unsigned> next{0};
  std::atomic<bool> stopped{false};

  Loop& Find(asio::io_context& context) {
    for (auto& loop : loops) {
      if (&loop->context == &context) return *loop;
    }
    internal::CheckFailed(__FILE__, __LINE__, "the loop is one of the runtime's", "");
  }
};

Runtime::Runtime() : impl_(std::make_unique<Impl>()) {}
Runtime::~Runtime() {
  Stop();
}

StatusOr<std::unique_ptr<Runtime>> Runtime::Create(int threads) {
  if (threads < 1 || threads > 1024) {
    return InvalidArgument("a runtime of " + std::to_string(threads) +
                           " threads: expected 1 to 1024");
  }
  std::unique_ptr<Runtime> runtime(new Runtime());
  try {
    for (int i = 0; i < threads; ++i) {
      Loop& loop = *runtime->impl_->loops.emplace_back(std::make_unique<Loop>());
      loop.thread = std::thread([&loop] { loop.context.run(); });
    }
  } catch (const std::exception& e) {
    return ResourceExhausted(std::string("starting the loop threads: ") + e.what());
  }
  return runtime;
}

int Runtime::threads() const {
  return static_cast<int>(impl_->loops.size());
}

asio::io_context& Runtime::loop(int i) {
  return impl_->loops.at(static_cast<size_t>(i))->context;
}

asio::io_context& Runtime::NextLoop() {
  return loop(static_cast<int>(impl_->next.fetch_add(1) % impl_->loops.size()));
}

void Runtime::Spawn(asio::io_context& context, Task<void> task) {
  Loop& loop = impl_->Find(context);
  asio::post(context, [&loop, task = std::move(task)]() mutable {
    const auto signal = loop.tasks.emplace(loop.tasks.end());
    auto ended = [&loop, signal](const std::exception_ptr& error) {
      EndOfTask(error);
      loop.tasks.erase(signal);
      if (loop.stopping && loop.tasks.empty()) loop.context.stop();
    };
    asio::co_spawn(loop.context, std::move(task),
                   asio::bind_cancellation_slot(signal->slot(), std::move(ended)));
    if (loop.stopping) signal->emit(asio::cancellation_type::terminal);
  });
}

void Runtime::BlockOn(Task<void> task) {
  std::promise<void> done;
  asio::co_spawn(NextLoop(), std::move(task), [&done](const std::exception_ptr& error) {
    EndOfTask(error);
    done.set_value();
  });
  done.get_future().wait();
}

void Runtime::Post(asio::io_context& context, std::function<void()> fn) {
  asio::post(context, std::move(fn));
}

void Runtime::Stop() {
  if (impl_->stopped.exchange(true)) return;
  for (auto& owned : impl_->loops)
    asio::post(owned->context, [&loop = *owned] { loop.BeginStop(); });
  for (auto& loop : impl_->loops) {
    if (loop->thread.joinable()) loop->thread.join();
  }
}

Task<Status> SleepFor(Duration time) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(time));
  const auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  co_return error ? Cancelled("the loop stops") : OkStatus();
}

}  // namespace llmd::http
