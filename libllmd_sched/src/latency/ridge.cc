#include "latency/ridge.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace llmd::sched::latency {
namespace {

constexpr double kForget = 0.997;     // half of what is known is from the last 230 observations
constexpr double kShrink = 1e-3;      // ridge, relative to each term's own weight
constexpr double kClip = 4;           // × the usual error
constexpr double kErrorRate = 0.01;   // of its running mean
constexpr double kLeastError = 0.05;  // below it, clipping would slow the answer to a change
constexpr int kSweeps = 3;
constexpr double kMax = 1e9;

json::Value ListOf(std::span<const double> values) {
  json::Array out;
  for (double v : values) out.emplace_back(v);
  return out;
}

// Fills `out`; false for another length, a non-number, or one outside [0, 1e18] (all sums here are
// of products of non-negative numbers).
bool Fill(const json::Value& list, std::span<double> out) {
  if (!list.is_array() || list.AsArray().size() != out.size()) return false;
  for (size_t i = 0; i < out.size(); ++i) {
    const json::Value& v = list.AsArray()[i];
    if (!v.is_number() || !(v.AsDouble() >= 0 && v.AsDouble() <= 1e18)) return false;
    out[i] = v.AsDouble();
  }
  return true;
}

}  // namespace

double Ridge::Predict(const Terms& x) const {
  double y = 0;
  for (size_t i = 0; i < kTerms; ++i) y += weights_[i] * x[i];
  return y;
}

void Ridge::Learn(const Terms& x, double y, double trust) {
  if (!(y > 0 && y < kMax)) return;
  double scale = std::max(y, floor_);
  if (ready()) {
    const double expected = Predict(x);
    scale = std::max(expected, floor_);
    const double off = (y - expected) / scale, most = kClip * std::max(error_, kLeastError);
    const double clipped = std::clamp(off, -most, most);
    error_ += kErrorRate * (std::abs(clipped) - error_);
    y = expected + clipped * scale;
  }
  const double weight = trust / (scale * scale);
  for (size_t i = 0; i < kTerms; ++i) {
    moment_[i] = kForget * moment_[i] + weight * x[i] * y;
    for (size_t j = 0; j < kTerms; ++j) {
      double& g = gram_[i * kTerms + j];
      g = kForget * g + weight * x[i] * x[j];
    }
  }
  samples_ = std::min(samples_ + 1, kMax);
  for (int i = 0; i < kSweeps; ++i) Sweep();
}

void Ridge::Sweep() {
  for (size_t i = 0; i < kTerms; ++i) {
    const double* row = &gram_[i * kTerms];
    // A term that has faded to nothing would divide by nothing.
    if (row[i] < 1e-30) continue;
    double rest = moment_[i] + row[i] * weights_[i];
    for (size_t j = 0; j < kTerms; ++j) rest -= row[j] * weights_[j];
    weights_[i] = std::clamp(rest / (row[i] * (1 + kShrink)), 0.0, kMax);
  }
}

json::Value Ridge::ToJson() const {
  return json::Object{{"samples", samples_},
                      {"error", error_},
                      {"gram", ListOf(gram_)},
                      {"moment", ListOf(moment_)},
                      {"weights", ListOf(weights_)}};
}

Status Ridge::FromJson(const json::Value& value) {
  Ridge read(floor_);
  double numbers[2];
  if (!Fill(json::Array{value["samples"], value["error"]}, numbers) ||
      !Fill(value["gram"], read.gram_) || !Fill(value["moment"], read.moment_) ||
      !Fill(value["weights"], read.weights_)) {
    return InvalidArgument("a model of " + std::to_string(kTerms) +
                           " terms was expected, every number from 0 to 1e18");
  }
  samples_ = std::min(numbers[0], kMax);
  error_ = std::clamp(numbers[1], 0.0, 10.0);
  gram_ = read.gram_;
  moment_ = read.moment_;
  for (size_t i = 0; i < kTerms; ++i) weights_[i] = std::min(read.weights_[i], kMax);
  return OkStatus();
}

}  // namespace llmd::sched::latency
