// Counts what OpenSSL allocates: buffers, not the few words that it takes for each record. For one
// source of a test program: it must be the first to use the library.
#pragma once

#include <malloc.h>
#include <openssl/crypto.h>

#include <atomic>
#include <cstdlib>

namespace llmd::relay::testing {

inline constexpr size_t kTlsBuffer = 512;
inline thread_local size_t tls_allocations = 0;  // of so many bytes and more, by this thread
inline std::atomic<size_t> tls_bytes{0};         // held, of all threads

inline void* CountAlloc(size_t bytes, const char*, int) {
  if (bytes >= kTlsBuffer) ++tls_allocations;
  void* const out = std::malloc(bytes);
  tls_bytes += ::malloc_usable_size(out);
  return out;
}
inline void CountFree(void* block, const char*, int) {
  tls_bytes -= ::malloc_usable_size(block);
  std::free(block);
}
inline void* CountRealloc(void* block, size_t bytes, const char*, int) {
  if (bytes >= kTlsBuffer) ++tls_allocations;
  tls_bytes -= ::malloc_usable_size(block);
  void* const out = std::realloc(block, bytes);
  tls_bytes += ::malloc_usable_size(out);
  return out;
}
inline const bool tls_counted = CRYPTO_set_mem_functions(CountAlloc, CountRealloc, CountFree) == 1;

}  // namespace llmd::relay::testing
