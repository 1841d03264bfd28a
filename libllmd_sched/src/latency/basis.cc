#include "latency/basis.h"

#include <algorithm>

namespace llmd::sched::latency {
namespace {

// In units of `unit`; NaN gives 0.
double Scaled(double v, double unit, double most) {
  return v > 0 ? std::min(v, most) / unit : 0;
}

}  // namespace

Terms Expand(Target target, const LatencyFeatures& f) {
  constexpr double kMaxPrompt = 4e6, kMaxTokens = 1e7, kMaxRequests = 1e4;
  const double kv = Scaled(f.kv_cache_percentage, 1, 1);
  const double n = Scaled(f.input_token_length, 1000, kMaxPrompt);
  const double w = Scaled(f.num_request_waiting, 10, kMaxRequests);
  const double r = Scaled(f.num_request_running, 10, kMaxRequests);
  const double g = Scaled(f.num_tokens_generated, 100, kMaxPrompt);
  const double p = Scaled(f.prefill_tokens_in_flight, 1000, kMaxTokens);
  const double d = Scaled(f.decode_tokens_in_flight, 10'000, kMaxTokens);
  const double e = Scaled(f.encoder_tokens, 1000, kMaxPrompt);
  const double u = n * (1 - Scaled(f.prefix_cache_score, 1, 1));
  if (target == Target::kTpot) return {1, r, d, kv, p, n, g, r * g, w, r * p};
  return {1,     u,     n * u, p,     p * n, r, w,     kv,    d, u * r,
          p * r, w * r, w * n, u * d, p * d, g, g * r, g * d, e};
}

}  // namespace llmd::sched::latency
