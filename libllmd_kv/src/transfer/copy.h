// Copies one block between pools. Thread-compatible.
#pragma once

#include <cstddef>

namespace llmd::kv {

// Large blocks go past the cache (the destination is read much later); both ends must be 64-byte
// aligned for that, else and for small blocks it is memcpy. All stores are visible to other threads
// on return.
void CopyBlock(std::byte* to, const std::byte* from, size_t bytes);

}  // namespace llmd::kv
