// What endpoints of each kind take: one pair of regressions (TTFT, TPOT) per class of endpoints,
// and one over all of them that speaks for a class of which too little is known. Bounded: at most
// kMaxClasses classes of 12 KB.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "latency/published.h"
#include "latency/ridge.h"

namespace llmd::sched::latency {

inline constexpr size_t kMaxClasses = 32;

// Thread-safe. Readers take no lock: they work on the weights published last.
class LatencyModel {
 public:
  // With `streaming` TTFT ends at the first chunk of an answer; without, at its end, so that the
  // answer's length counts.
  explicit LatencyModel(bool streaming);

  // The number of the class called `label`; 0, the class of all, once there are too many.
  uint8_t ClassOf(std::string_view label);

  void LearnTtft(uint8_t model_class, const LatencyFeatures& features, double ttft_ms);
  // `features.num_tokens_generated` is the answer's length.
  void LearnTpot(uint8_t model_class, const LatencyFeatures& features, double tpot_ms);
  // An answer of that many tokens has ended.
  void LearnLength(uint8_t model_class, double tokens);

  bool streaming() const { return streaming_; }
  // Observations so far, both targets.
  uint64_t learned() const { return learned_.load(std::memory_order_relaxed); }

  json::Value ToJson() const;
  // Takes over what ToJson gave, before anyone reads or learns. INVALID_ARGUMENT says what is
  // wrong; nothing changes then.
  Status FromJson(const json::Value& value);

 private:
  friend class Reader;
  struct Weights {
    Terms ttft{}, tpot{};
    double ttft_ready = 0, tpot_ready = 0, length = 0;  // length 0 = no answer seen
  };
  struct Class {
    std::string label;
    Ridge ttft{5}, tpot{1};  // ms below which errors stop being relative
    double length = 0;
    Published<Weights> published;
    void Publish();
  };
  static StatusOr<std::unique_ptr<Class>> ReadClass(const json::Value& value);
  template <typename F>
  void Learn(uint8_t model_class, F f);

  const bool streaming_;
  std::atomic<uint64_t> learned_{0};
  mutable std::mutex mutex_;
  std::array<std::unique_ptr<Class>, kMaxClasses> classes_;  // made once, never moved
  std::atomic<size_t> count_{1};                             // grows under mutex_
};

// The model as it stands at one decision; each class is read once, when first asked for. Lives on
// the stack of one thread; the model outlives it.
class Reader {
 public:
  explicit Reader(const LatencyModel& model) : model_(model) {}
  // Milliseconds; NaN while too little is known. `features.num_tokens_generated` > 0 bounds the
  // expected length of the answer (max_tokens).
  double Ttft(uint8_t model_class, LatencyFeatures features);
  double Tpot(uint8_t model_class, LatencyFeatures features);

 private:
  const LatencyModel::Weights& Of(uint8_t model_class);
  double Predict(Target target, uint8_t model_class, LatencyFeatures& features);
  const LatencyModel& model_;
  uint32_t read_ = 0;                           // bit per class
  LatencyModel::Weights weights_[kMaxClasses];  // valid where read_ says so
};

}  // namespace llmd::sched::latency
