// Named threads behind a bounded queue, for work that would block a loop thread (tokenising,
// hashing, file reads).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "llmd/status.h"

namespace llmd {

// Owns its threads. Thread-safe. Jobs must not throw, and must not wait for a job behind them in
// the same pool.
class WorkerPool {
 public:
  struct Options {
    std::string name =
        "worker";  // threads are called name/0, name/1, … cut to the system's 15 bytes
    size_t threads = 1;
    size_t max_queued = 1024;  // jobs that wait; those that run do not count
  };

  // RESOURCE_EXHAUSTED when the system has no more threads, INVALID_ARGUMENT for a zero.
  static StatusOr<std::unique_ptr<WorkerPool>> Create(const Options& options);
  ~WorkerPool();

  // RESOURCE_EXHAUSTED when the queue is full, CANCELLED after Stop; the job then never runs. An
  // accepted job always runs.
  Status Submit(std::function<void()> job);
  // Takes no more jobs, runs those it accepted, joins the threads. May be called twice, not from a
  // job.
  void Stop();

  size_t queued() const;
  size_t threads() const;

 private:
  struct Impl;
  explicit WorkerPool(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Names the calling thread for debuggers and top; cut to 15 bytes.
void SetThreadName(const std::string& name);

}  // namespace llmd
