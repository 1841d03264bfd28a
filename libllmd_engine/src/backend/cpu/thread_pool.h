// The threads of a CPU backend: started once, woken for each parallel loop, spinning for some tens
// of microseconds after one (the next follows soon) and asleep on a futex otherwise. The caller
// works too. Work is handed out in shrinking chunks, and the caller waits for chunks, not for
// threads: a thread whose core was taken away delays at most the chunk it holds. Owned and driven
// by one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace llmd::engine::cpu {

class ThreadPool {
 public:
  // `threads` counts the caller, at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(thread, begin, end) over [0, count), chunks a multiple of `grain` but for the last.
  // Returns when all is done. thread is in [0, size()). count < 2^24.
  template <typename Body>
  void For(int count, int grain, const Body& body) {
    if (count <= 0) return;
    if (count <= grain || workers_.empty()) return body(0, 0, count);
    Run(
        count, grain,
        [](const void* context, int thread, int begin, int end) {
          (*static_cast<const Body*>(context))(thread, begin, end);
        },
        &body);
  }

 private:
  using Call = void (*)(const void* context, int thread, int begin, int end);

  void Run(int count, int grain, Call call, const void* context);
  void Work(uint32_t job, int thread);
  void Loop(int thread);
  uint32_t WaitForJob(uint32_t last, int& patience);

  // A thread may read the fields of a later job than its own: its claim then fails, because the
  // job's number stands beside the next index in one word and changes before the fields do.
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<int> count_{0}, grain_{1};
  alignas(64) std::atomic<uint64_t> next_{0};  // job << 32 | first index not handed out
  alignas(64) std::atomic<int> done_{0};       // indices worked off
  alignas(64) std::atomic<uint32_t> job_{0};   // woken on
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

// Cores this process may use: its affinity mask, and the cgroup's quota rounded up.
int UsableCores();

}  // namespace llmd::engine::cpu
