#include "llmd/metrics.h"

#include <algorithm>
#include <cmath>

#include "llmd/format.h"
#include "llmd/status.h"

namespace llmd {

void Counter::Add(double by) {
  value_.fetch_add(by, std::memory_order_relaxed);
}

void Gauge::Add(double by) {
  value_.fetch_add(by, std::memory_order_relaxed);
}

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(new std::atomic<uint64_t>[bounds_.size() + 1]()) {
  LLMD_CHECK(std::is_sorted(bounds_.begin(), bounds_.end()));
}

void Histogram::Observe(double v, uint64_t times) {
  const auto it = std::lower_bound(bounds_.begin(), bounds_.end(), v);
  // NaN compares with nothing; it counts only in the last bucket.
  const size_t bucket = std::isnan(v) ? bounds_.size() : static_cast<size_t>(it - bounds_.begin());
  counts_[bucket].fetch_add(times, std::memory_order_relaxed);
  sum_.fetch_add(v * static_cast<double>(times), std::memory_order_relaxed);
}

std::vector<uint64_t> Histogram::Counts() const {
  std::vector<uint64_t> out(bounds_.size() + 1);
  for (size_t i = 0; i < out.size(); ++i) out[i] = counts_[i].load(std::memory_order_relaxed);
  return out;
}

uint64_t Histogram::count() const {
  uint64_t total = 0;
  for (const uint64_t n : Counts()) total += n;
  return total;
}

std::string FormatMetricValue(double v) {
  if (!std::isfinite(v)) return std::isnan(v) ? "NaN" : (v > 0 ? "+Inf" : "-Inf");
  std::string text;
  AppendPythonFloat(text, v);
  const size_t dot = text.find('.');
  if (v <= 0 || dot == std::string::npos || dot <= 6) return text;
  // The client goes over to exponents from a million on, of at least two digits.
  std::string mantissa = text.substr(0, 1) + "." + text.substr(1, dot - 1) + text.substr(dot + 1);
  mantissa.erase(mantissa.find_last_not_of("0.") + 1);
  const std::string exponent = std::to_string(dot - 1);
  return mantissa + (exponent.size() < 2 ? "e+0" : "e+") + exponent;
}

}  // namespace llmd
