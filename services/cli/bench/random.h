// Random numbers that are the same on every machine: SplitMix64 (Steele, Lea, Flood 2014), started
// from a seed, a stream (what the numbers are for) and an index (which request), so that request N
// is the same whoever makes it and whatever was made before. Thread-compatible.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace llmd::bench {

class Random {
 public:
  enum Stream : uint64_t { kArrivals = 1, kShape, kPrompt, kGroup, kBlock, kTenant };

  Random(uint64_t seed, Stream stream, uint64_t index)
      : state_(Mix(Mix(seed + kStep) ^ (static_cast<uint64_t>(stream) * kStep)) ^ Mix(index)) {}

  uint64_t Next() { return Mix(state_ += kStep); }
  // In [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // In [0, n); n > 0.
  uint64_t Below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64);
  }
  // Mean 1.
  double Exponential() { return -std::log1p(-Uniform()); }
  // Mean 0, deviation 1 (Box and Muller).
  double Normal() {
    const double radius = std::sqrt(2 * Exponential());
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

}  // namespace llmd::bench
