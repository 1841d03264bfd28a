// Pools of one process share a seed, but must not give the same ids.
#pragma once

#include <cstdint>
#include <string_view>

#include "llmd/uuid.h"

namespace llmd::sched {

// A seed of 0 says that there is none.
inline uint64_t GivenOrDrawn(uint64_t seed) {
  return seed ? seed : RandomBits();
}

// The seed of the pool of that name (FNV-1a over the name).
constexpr uint64_t PoolSeed(uint64_t seed, std::string_view pool) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : pool) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return seed ^ hash;
}

}  // namespace llmd::sched
