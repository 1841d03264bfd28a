// What the latency model sees of an endpoint, and what it says: plain values, by endpoint.
#pragma once

#include <cstdint>
#include <limits>

#include "llmd/clock.h"

namespace llmd::sched {

// The state of one endpoint as one request finds it (docs/reference/predicted-latency.md). Counts
// are of this picker, gauges the endpoint's own.
struct LatencyFeatures {
  double kv_cache_percentage = 0;  // 0..1
  double input_token_length = 0;
  double num_request_waiting = 0, num_request_running = 0;
  double num_tokens_generated = 0;  // of the answer; when predicting, what is expected
  double prefix_cache_score = 0;    // cached share of the prompt, 0..1
  double prefill_tokens_in_flight = 0, decode_tokens_in_flight = 0;
  double encoder_tokens = 0;  // of media that the endpoint has yet to encode
};

// One endpoint's entry of LatencyPredictionInfo.
struct LatencyPrediction {
  double ttft_ms = std::numeric_limits<double>::quiet_NaN();  // NaN = not predicted
  double tpot_ms = std::numeric_limits<double>::quiet_NaN();
  // SLO − prediction, ms; 0 where the dimension does not count. Only with `valid`.
  double ttft_headroom_ms = 0, tpot_headroom_ms = 0;
  double dispatched = 0;  // this picker's requests on the endpoint
  bool valid = false;     // every dimension that counts was predicted
  bool Meets() const { return valid && ttft_headroom_ms >= 0 && tpot_headroom_ms >= 0; }
};

// A request's stay on an endpoint, from its dispatch to its end.
struct LatencyVisit {
  const void* owner = nullptr;  // the producer
  size_t charge = 0;            // of the request, in the ledger
  uint8_t model_class = 0;
  bool prefill = false;   // the prefill stage: ends with the first chunk
  bool decoding = false;  // the first chunk has come
  bool open = true;
  double prefill_tokens = 0, decode_tokens = 0;  // what it counts for in each phase
  LatencyFeatures features;
  LatencyPrediction predicted;
  TimePoint sent{}, first_chunk{};
};

}  // namespace llmd::sched
