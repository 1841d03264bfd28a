#include "llmd/engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace llmd::engine {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kChunk = 512;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int kHeapLimit = 1024;

float MaxOf(const float* v, size_t n) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kMinusInfinity);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = v[i + j] > lanes[j] ? v[i + j] : lanes[j];
  }
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], v[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

// The order of additions is fixed, so that a sum is a function of its row.
double SumOf(const float* v, size_t n) {
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kChunk) {
    const size_t end = std::min(begin + kChunk, n);
    float lanes[kLanes] = {};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) lanes[j] += v[i + j];
    }
    for (; i < end; ++i) lanes[0] += v[i];
    for (const float lane : lanes) total += lane;
  }
  return total;
}

double UniformOf(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace

uint64_t PhiloxBits(uint64_t key, uint64_t counter) {
  uint32_t c[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
    std::copy(next, next + 4, c);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (uint64_t{c[1]} << 32) | c[0];
}

TokenId ArgMax(std::span<const float> values) {
  size_t best_chunk = 0;
  float best = kMinusInfinity;
  for (size_t begin = 0; begin < values.size(); begin += kChunk) {
    const float chunk = MaxOf(values.data() + begin, std::min(kChunk, values.size() - begin));
    if (chunk > best) {
      best = chunk;
      best_chunk = begin;
    }
  }
  for (size_t i = best_chunk; i < values.size(); ++i) {
    if (values[i] == best) return static_cast<TokenId>(i);
  }
  return 0;
}

float FastExp(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  const float clamped = x < -87.0f ? -87.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = (clamped * kLog2E + kRound) - kRound;
  const float y = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 5040.0f;
  p = p * y + 1.0f / 720.0f;
  p = p * y + 1.0f / 120.0f;
  p = p * y + 1.0f / 24.0f;
  p = p * y + 1.0f / 6.0f;
  p = p * y + 0.5f;
  p = p * y + 1.0f;
  p = p * y + 1.0f;
  const float scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < -87.0f ? 0.0f : p * scale;
}

Sampler::Sampler(int vocab_size) : raw_(vocab_size), weights_(vocab_size) {
  candidates_.reserve(vocab_size);
  heap_.reserve(vocab_size);
  ids_.reserve(vocab_size);
}

TokenId Sampler::Sample(const SamplingParams& params, LogitsState& state,
                        std::span<const TokenId> output, uint64_t seed, uint64_t position,
                        std::span<float> logits, PositionLogprobs* logprobs) {
  const bool processed = state.Active(params, output.size());
  std::span<const float> raw = logits;
  if (logprobs != nullptr && processed) {
    std::copy(logits.begin(), logits.end(), raw_.begin());
    raw = raw_;
  }
  if (processed) state.Apply(params, output, logits);
  const TokenId token = params.temperature < kGreedyTemperature
                            ? ArgMax(logits)
                            : Draw(params, UniformOf(PhiloxBits(seed, position)), logits);
  if (logprobs != nullptr) Logprobs(raw, token, params.logprobs.value_or(0), *logprobs);
  return token;
}

TokenId Sampler::Draw(const SamplingParams& params, double uniform, std::span<const float> logits) {
  const size_t n = logits.size();
  const float max = MaxOf(logits.data(), n);
  if (!std::isfinite(max)) return ArgMax(logits);
  const float inverse = 1.0f / params.temperature;
  for (size_t i = 0; i < n; ++i) weights_[i] = FastExp((logits[i] - max) * inverse);

  const bool by_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < n;
  if (!by_k && params.top_p >= 1.0f && params.min_p <= 0.0f) return DrawFromAll(uniform, n);

  const float least = by_k ? KthLargest(logits, params.top_k) : kMinusInfinity;
  candidates_.clear();
  for (size_t i = 0; i < n; ++i) {
    if (logits[i] >= least && weights_[i] >= params.min_p && weights_[i] > 0) {
      candidates_.push_back({logits[i], weights_[i], static_cast<TokenId>(i)});
    }
  }
  if (params.top_p < 1.0f) KeepNucleus(params.top_p);
  return DrawFromCandidates(uniform);
}

TokenId Sampler::DrawFromAll(double uniform, size_t n) {
  double left = uniform * SumOf(weights_.data(), n);
  size_t last = 0;
  for (size_t begin = 0; begin < n; begin += kChunk) {
    const size_t end = std::min(begin + kChunk, n);
    const double chunk = SumOf(weights_.data() + begin, end - begin);
    if (chunk > 0 && left >= chunk) {
      left -= chunk;
      last = end - 1;
      continue;
    }
    for (size_t i = begin; i < end; ++i) {
      if (weights_[i] <= 0) continue;
      last = i;
      if (left < weights_[i]) return static_cast<TokenId>(i);
      left -= weights_[i];
    }
  }
  // Rounding left a crumb: the last id with weight takes it.
  while (last > 0 && weights_[last] <= 0) --last;
  return static_cast<TokenId>(last);
}

TokenId Sampler::DrawFromCandidates(double uniform) const {
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  double left = uniform * total;
  for (const Candidate& c : candidates_) {
    if (left < c.weight) return c.id;
    left -= c.weight;
  }
  return candidates_.back().id;
}

// A bounded heap for the usual small k: after the first rows nearly every value is turned away by
// one comparison.
float Sampler::KthLargest(std::span<const float> logits, int k) {
  heap_.assign(logits.begin(), logits.begin() + (k <= kHeapLimit ? k : logits.size()));
  if (k > kHeapLimit) {
    std::nth_element(heap_.begin(), heap_.begin() + (k - 1), heap_.end(), std::greater<>());
    return heap_[k - 1];
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  for (size_t i = k; i < logits.size(); ++i) {
    if (logits[i] <= heap_.front()) continue;
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.back() = logits[i];
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  return heap_.front();
}

// Keeps the fewest most likely candidates whose share reaches top_p, by halving instead of sorting.
// Candidates below (1 - top_p) / n can go at once: all of them together stay under the mass that is
// dropped.
void Sampler::KeepNucleus(double top_p) {
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  const double floor = (1 - top_p) * total / static_cast<double>(candidates_.size());
  std::erase_if(candidates_, [floor](const Candidate& c) { return c.weight < floor; });

  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const double target = top_p * total;
  double above = 0;
  size_t low = 0, high = candidates_.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    const auto at = candidates_.begin();
    std::nth_element(at + low, at + middle, at + high, likelier);
    double mass = 0;
    for (size_t i = low; i < middle; ++i) mass += candidates_[i].weight;
    if (above + mass >= target) {
      high = middle;
    } else {
      above += mass;
      low = middle;
    }
  }
  candidates_.resize(low + 1);
}

void Sampler::Logprobs(std::span<const float> logits, TokenId token, int top,
                       PositionLogprobs& out) {
  const size_t n = logits.size();
  const float max = MaxOf(logits.data(), n);
  for (size_t i = 0; i < n; ++i) weights_[i] = FastExp(logits[i] - max);
  const double log_total = std::log(SumOf(weights_.data(), n)) + max;
  const auto logprob = [&](TokenId id) { return static_cast<float>(logits[id] - log_total); };
  const auto rank = [&](TokenId id) {
    int at_least = 0;
    for (size_t i = 0; i < n; ++i) at_least += logits[i] >= logits[id];
    return at_least;
  };
  const size_t count = top < 0 ? n : std::min<size_t>(top, n);
  out.reserve(count + 1);
  out.push_back({token, logprob(token), rank(token)});
  if (count == 0) return;
  ids_.resize(n);
  std::iota(ids_.begin(), ids_.end(), 0);
  std::partial_sort(ids_.begin(), ids_.begin() + count, ids_.end(), [&](TokenId a, TokenId b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  for (size_t i = 0; i < count; ++i)
    out.push_back({ids_[i], logprob(ids_[i]), static_cast<int>(i) + 1});
}

}  // namespace llmd::engine
