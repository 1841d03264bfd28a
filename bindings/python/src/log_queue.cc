#include "log_queue.h"

#include <pthread.h>
#include <pybind11/stl.h>

#include <mutex>
#include <string>
#include <vector>

#include "bindings.h"

namespace llmd::python {
namespace {

constexpr size_t kMaxLines = 1000;
constexpr int kPythonDebug = 10, kPythonInfo = 20, kPythonWarning = 30;

class QueueSink final : public LogSink {
 public:
  void Write(std::string_view line) override {
    const std::lock_guard lock(mutex_);
    if (lines_.size() < kMaxLines) {
      lines_.emplace_back(line);
    } else {
      ++dropped_;
    }
    waiting_.store(true, std::memory_order_release);
  }
  // Around a fork, so that the child does not find it locked by a thread that it lacks. What waits
  // there is its parent's to deliver.
  void BeforeFork() { mutex_.lock(); }
  void InParent() { mutex_.unlock(); }
  void InChild() {
    lines_.clear();
    dropped_ = 0;
    waiting_.store(false, std::memory_order_relaxed);
    mutex_.unlock();
  }
  bool waiting() const { return waiting_.load(std::memory_order_acquire); }
  std::vector<std::string> Take(size_t* dropped) {
    const std::lock_guard lock(mutex_);
    waiting_.store(false, std::memory_order_relaxed);
    *dropped = std::exchange(dropped_, 0);
    return std::exchange(lines_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;  // guarded by mutex_
  size_t dropped_ = 0;              // guarded by mutex_
  std::atomic<bool> waiting_{false};
};

// Loggers may outlive every Python object that made one.
QueueSink& Queue();

QueueSink* NewQueue() {
  pthread_atfork([] { Queue().BeforeFork(); }, [] { Queue().InParent(); },
                 [] { Queue().InChild(); });
  return new QueueSink;
}

QueueSink& Queue() {
  static QueueSink& queue = *NewQueue();
  return queue;
}

}  // namespace

Logger PythonLogger() {
  const int level = py::module_::import("logging")
                        .attr("getLogger")("llmd")
                        .attr("getEffectiveLevel")()
                        .cast<int>();
  const LogLevel ours = level <= kPythonDebug     ? LogLevel::kDebug
                        : level <= kPythonInfo    ? LogLevel::kInfo
                        : level <= kPythonWarning ? LogLevel::kWarn
                                                  : LogLevel::kError;
  return {std::shared_ptr<LogSink>(&Queue(), [](LogSink*) {}), ours};
}

void DeliverLogs() {
  if (!Queue().waiting()) return;
  size_t dropped = 0;
  const std::vector<std::string> lines = Queue().Take(&dropped);
  const py::error_scope kept;  // an exception on its way stays
  try {
    py::module_::import("llmd._logging").attr("emit")(lines, dropped);
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("llmd logging");
  }
}

}  // namespace llmd::python
