#include "testing/clock_reads.h"

#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LLMD_COUNTS_CLOCK_READS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LLMD_COUNTS_CLOCK_READS 0
#endif
#endif
#ifndef LLMD_COUNTS_CLOCK_READS
#define LLMD_COUNTS_CLOCK_READS 1
#endif

namespace {
thread_local constinit uint64_t reads = 0;
}  // namespace

#if LLMD_COUNTS_CLOCK_READS
// In place of libc's: the program's own definitions come first, for libstdc++ as well.
extern "C" int clock_gettime(clockid_t id, struct timespec* out) noexcept {
  ++reads;
  return static_cast<int>(syscall(SYS_clock_gettime, id, out));
}
extern "C" time_t time(time_t* out) noexcept {
  ++reads;
  struct timespec now = {};
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}
extern "C" int gettimeofday(struct timeval* out, void*) noexcept {
  ++reads;
  struct timespec now = {};
  const long failed = syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  *out = {.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  return static_cast<int>(failed);
}
#endif

namespace llmd::sched::testing {

uint64_t ClockReadsSoFar() {
  return reads;
}

bool SeesClockReads() {
  const uint64_t before = reads;
  (void)std::chrono::steady_clock::now();
  return reads > before;
}

}  // namespace llmd::sched::testing
