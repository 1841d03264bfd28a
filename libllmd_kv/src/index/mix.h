// Spreads the bits of a number; one to one (the finaliser of splitmix64, Steele et al. 2014).
#pragma once

#include <cstdint>

namespace llmd::kv {

constexpr uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace llmd::kv
