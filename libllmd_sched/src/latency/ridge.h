// Online regression with non-negative weights, for times that add up: y ≈ Σ wᵢ·xᵢ, wᵢ ≥ 0, xᵢ ≥ 0.
// Keeps the normal equations under exponential forgetting and improves the weights by a few sweeps
// of coordinate descent per observation. Errors are relative: an observation weighs 1/ŷ², and one
// far off is pulled to a few times the usual error first (Huber's clipping), so that a stalled
// connection cannot bend the model.
//
// Why this one. Compared online (predict, then learn) on the engine of tests/support/engine_sim.h,
// 4 engines, 8,000 requests, prompts of 0.2k–14k tokens with shared beginnings, mean absolute error
// of TTFT in percent of it, at 20 / 30 / 36 requests per second:
//   linear on the plain features                          28.9 / 27.5 / 22.6
//   boosted trees, plain, refit on the last 2,000 × 16    22.3 / 24.5 / 21.0
//   the same on log TTFT                                  19.1 / 21.4 / 18.9
//   products of basis.h, unconstrained ridge              32.5 / 34.7 / 55.4
//   products of basis.h, weights ≥ 0 (this)               18.7 / 20.0 / 17.5
// The sign constraint is what makes the products safe: more load never predicts less time, nothing
// negative can come out, and extrapolation to a longer queue stays sensible. It needs 3 KB, no
// allocation, and about a microsecond an observation; trees of the same quality need a refit.
#pragma once

#include "latency/basis.h"
#include "llmd/json.h"

namespace llmd::sched::latency {

// Thread-compatible.
class Ridge {
 public:
  // `floor` is the smallest y that relative errors are taken of, in y's unit.
  explicit Ridge(double floor) : floor_(floor) {}

  // y must be finite and > 0; others are ignored. `trust` in (0, 1] scales the observation.
  void Learn(const Terms& x, double y, double trust = 1);
  double Predict(const Terms& x) const;
  const Terms& weights() const { return weights_; }
  double samples() const { return samples_; }
  // Running mean of |y − ŷ| / ŷ, clipped errors.
  double error() const { return error_; }
  // Enough observations that predictions mean something.
  bool ready() const { return samples_ >= kMinSamples; }

  json::Value ToJson() const;
  // INVALID_ARGUMENT when it is not what ToJson writes or holds numbers no learning gives; *this is
  // unchanged then.
  Status FromJson(const json::Value& value);

  static constexpr double kMinSamples = 50;

 private:
  void Sweep();
  const double floor_;
  double samples_ = 0, error_ = 0.5;
  std::array<double, kTerms * kTerms> gram_{};  // Σ wxxᵀ
  Terms moment_{};                              // Σ wxy
  Terms weights_{};
};

}  // namespace llmd::sched::latency
