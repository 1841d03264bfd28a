#include "backend/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

namespace llmd::engine::cpu {
namespace {

constexpr int kMinSpins = 64, kMaxSpins = 1024;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr,
            nullptr, 0);
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr,
            nullptr, 0);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Loop(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  job_.fetch_add(1);
  FutexWakeAll(job_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int count, int grain, Call call, const void* context) {
  uint32_t job = job_.load(std::memory_order_relaxed) + 1;
  // The new number comes first: a thread still looking for work of the last job, which may by now
  // read the fields of this one, then fails to claim. Nobody claims of this job before job_ says
  // so.
  next_.store(static_cast<uint64_t>(job) << 32, std::memory_order_relaxed);
  call_.store(call, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  count_.store(count, std::memory_order_release);
  grain_.store(grain, std::memory_order_release);
  done_.store(0, std::memory_order_release);
  job_.store(job);
  if (sleeping_.load() > 0) FutexWakeAll(job_);
  Work(job, 0);
  for (int spins = 0; done_.load(std::memory_order_acquire) != count; ++spins) {
    if (spins < kMaxSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::Work(uint32_t job, int thread) {
  uint64_t next = next_.load(std::memory_order_acquire);
  while (next >> 32 == job) {
    int count = count_.load(std::memory_order_acquire),
        grain = grain_.load(std::memory_order_acquire);
    int begin = static_cast<int>(next & 0xffffffff);
    if (begin >= count) return;
    int chunk = std::max((count - begin) / (2 * size()) / grain * grain, grain);
    int end = std::min(begin + chunk, count);
    if (!next_.compare_exchange_weak(next,
                                     static_cast<uint64_t>(job) << 32 | static_cast<uint32_t>(end),
                                     std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    call_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), thread, begin,
                                          end);
    done_.fetch_add(end - begin, std::memory_order_release);
    next = next_.load(std::memory_order_acquire);
  }
}

// Waits longer before sleeping while that has paid off lately, shorter while it has not.
uint32_t ThreadPool::WaitForJob(uint32_t last, int& patience) {
  for (int i = 0; i < patience; ++i) {
    uint32_t job = job_.load(std::memory_order_acquire);
    if (job != last) {
      patience = std::min(patience * 2, kMaxSpins);
      return job;
    }
    Pause();
  }
  patience = std::max(patience / 2, kMinSpins);
  sleeping_.fetch_add(1);
  uint32_t job = job_.load();
  while (job == last) {
    FutexWait(job_, last);
    job = job_.load();
  }
  sleeping_.fetch_sub(1);
  return job;
}

void ThreadPool::Loop(int thread) {
  uint32_t last = 0;
  int patience = kMaxSpins;
  while (true) {
    last = WaitForJob(last, patience);
    if (stop_.load()) return;
    Work(last, thread);
  }
}

int UsableCores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int cores = ::sched_getaffinity(0, sizeof(mask), &mask) == 0
                  ? CPU_COUNT(&mask)
                  : static_cast<int>(std::thread::hardware_concurrency());
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) {
    cores =
        std::min(cores, static_cast<int>(std::ceil(std::strtod(quota.c_str(), nullptr) / period)));
  }
  return std::max(cores, 1);
}

}  // namespace llmd::engine::cpu
