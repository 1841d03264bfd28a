#include "fork_guard.h"

#include <pthread.h>

#include <atomic>

namespace llmd::python {
namespace {

std::atomic<int> g_generation{0};

}  // namespace

int ForkGeneration() {
  static const int registered = pthread_atfork(
      nullptr, nullptr, [] { g_generation.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(registered);
  return g_generation.load(std::memory_order_relaxed);
}

}  // namespace llmd::python
