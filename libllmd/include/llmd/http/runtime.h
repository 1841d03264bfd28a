// Loop threads: each runs one I/O context and never blocks. A Runtime owns them; servers, clients
// and timers live on it.
#pragma once

#include <functional>
#include <memory>

#include "llmd/clock.h"
#include "llmd/http/task.h"
#include "llmd/status.h"

namespace boost::asio {
class io_context;
}

namespace llmd::http {

// Thread-safe. Stop() (or the destructor) cancels what was spawned, ends the loops and joins the
// threads. Servers are stopped before their runtime.
class Runtime {
 public:
  static StatusOr<std::unique_ptr<Runtime>> Create(int threads);
  ~Runtime();

  int threads() const;
  // The loop of thread i.
  boost::asio::io_context& loop(int i);
  // The loops in turn.
  boost::asio::io_context& NextLoop();
  // Starts a coroutine on a loop; an escaping exception is our bug and ends the process.
  void Spawn(boost::asio::io_context& loop, Task<void> task);
  void Spawn(Task<void> task) { Spawn(NextLoop(), std::move(task)); }
  // Runs a coroutine and waits for it; not from a loop thread.
  void BlockOn(Task<void> task);
  // Runs `fn` on the loop, soon.
  void Post(boost::asio::io_context& loop, std::function<void()> fn);
  void Stop();

 private:
  Runtime();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Suspends the calling coroutine. CANCELLED when the loop stops first.
Task<Status> SleepFor(Duration time);

}  // namespace llmd::http
