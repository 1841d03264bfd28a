#include "cli/bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "llmd/status.h"

namespace llmd::bench {

// Values below 2^(bits + 1) have a bucket each; above, each power of two has 2^bits of them.
size_t Histogram::IndexOf(int64_t value) const {
  const auto v = static_cast<uint64_t>(value);
  const int shift = std::max(0, static_cast<int>(std::bit_width(v)) - (bits_ + 1));
  return (static_cast<size_t>(shift) << bits_) + static_cast<size_t>(v >> shift);
}

int64_t Histogram::FirstOf(size_t index) const {
  const size_t each = size_t{1} << bits_;
  if (index < 2 * each) return static_cast<int64_t>(index);
  const size_t shift = (index >> bits_) - 1;
  return static_cast<int64_t>((index - (shift << bits_)) << shift);
}

void Histogram::Record(int64_t nanos) {
  nanos = std::clamp<int64_t>(nanos, 0, kMaxNanos);
  if (counts_.empty()) counts_.resize(IndexOf(kMaxNanos) + 1);
  ++counts_[IndexOf(nanos)];
  ++count_;
  sum_ += static_cast<double>(nanos);
  min_ = std::min(min_, nanos);
  max_ = std::max(max_, nanos);
}

void Histogram::Merge(const Histogram& other) {
  LLMD_CHECK(bits_ == other.bits_);
  if (other.count_ == 0) return;
  if (counts_.empty()) counts_.resize(other.counts_.size());
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

int64_t Histogram::Percentile(double percent) const {
  if (count_ == 0) return 0;
  const double exact = std::ceil(percent / 100 * static_cast<double>(count_));
  const auto rank = static_cast<uint64_t>(std::clamp(exact, 1.0, static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::min(LastOf(i), max_);
  }
  return max_;
}

std::vector<Histogram::Bucket> Histogram::Buckets() const {
  std::vector<Bucket> out;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] != 0) out.push_back({FirstOf(i), LastOf(i), counts_[i]});
  }
  return out;
}

}  // namespace llmd::bench
