// Counts this thread's allocations by replacing the program's operator new. Include it in exactly
// one source file of a test program, and pass AllocationsSoFar as PropertyOptions::allocations.
// Under ThreadSanitizer, which has an operator new of its own, nothing is counted.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_THREAD__)
#define LLMD_COUNTS_ALLOCATIONS 0
#elif defined(__has_feature)
#define LLMD_COUNTS_ALLOCATIONS !__has_feature(thread_sanitizer)
#else
#define LLMD_COUNTS_ALLOCATIONS 1
#endif

namespace llmd::sched::testing {

inline constexpr bool kCountsAllocations = LLMD_COUNTS_ALLOCATIONS;
inline thread_local uint64_t allocations_of_this_thread = 0;
inline uint64_t AllocationsSoFar() {
  return allocations_of_this_thread;
}

}  // namespace llmd::sched::testing

#if LLMD_COUNTS_ALLOCATIONS
void* operator new(std::size_t size) {
  ++llmd::sched::testing::allocations_of_this_thread;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++llmd::sched::testing::allocations_of_this_thread;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
#endif
