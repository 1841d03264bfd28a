// Counts of durations in buckets whose width grows with the value, as HdrHistogram keeps them: the
// relative error is bounded, recording is an addition to an array, and histograms of several
// threads add up. Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace llmd::bench {

class Histogram {
 public:
  // What is above counts as this: 73 minutes.
  static constexpr int64_t kMaxNanos = (int64_t{1} << 42) - 1;

  // A percentile is at most 2^-precision_bits above the value: 10 is 0.1 %. 1 to 20.
  explicit Histogram(int precision_bits = 10) : bits_(precision_bits) {}

  // Below 0 counts as 0. The first call allocates, no other does.
  void Record(int64_t nanos);
  // Of the same precision.
  void Merge(const Histogram& other);

  uint64_t count() const { return count_; }
  // Exact; 0 when nothing was recorded, as with all that follow.
  int64_t min() const { return count_ ? min_ : 0; }
  int64_t max() const { return max_; }
  double Mean() const { return count_ ? sum_ / static_cast<double>(count_) : 0; }
  // The smallest value that `percent` (0 to 100) of the values do not exceed, rounded up to the end
  // of its bucket but never above max().
  int64_t Percentile(double percent) const;

  // A bucket that holds something, for charts.
  struct Bucket {
    int64_t from = 0, to = 0;  // both included
    uint64_t count = 0;
  };
  std::vector<Bucket> Buckets() const;

 private:
  size_t IndexOf(int64_t value) const;
  int64_t FirstOf(size_t index) const;
  int64_t LastOf(size_t index) const { return FirstOf(index + 1) - 1; }

  int bits_;
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  int64_t min_ = kMaxNanos, max_ = 0;
  double sum_ = 0;
};

}  // namespace llmd::bench
