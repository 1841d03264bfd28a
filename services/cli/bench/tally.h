// What is counted about requests: for the whole run, for a stage, for a tenant, for a stretch of
// time. Each loop keeps its own and they are added up at the end. Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench/histogram.h"
#include "cli/bench/options.h"

namespace llmd::bench {

enum class Failure : uint8_t {
  kNone,
  kRefused,         // connect: nobody listens
  kConnect,         // connect: any other reason
  kConnectTimeout,  // not connected within --timeout
  kTls,             // no handshake: certificate, version
  kReset,           // the peer reset the connection
  kClosed,          // the peer closed before the answer's end
  kTimeout,         // no whole answer within --timeout
  kProtocol,        // what came is no HTTP/1.1 answer
  kStatus,          // a status of 400 and above, or a redirect
  kStreamError,     // an event that says error
  kStreamCut,       // a stream of events that ended without [DONE]
  kLocal,           // this machine has no descriptor, port or memory
};
inline constexpr size_t kFailures = 13;
// As in reports: "refused", "stream_cut"; of kStatus the caller says which.
std::string_view Name(Failure failure);

// One request that is over. Times in ns since the run's start; 0 = did not happen.
struct Outcome {
  int64_t intended = 0, sent = 0, first_token = 0, last_token = 0, end = 0;
  Failure failure = Failure::kNone;
  int status = 0;
  bool has_usage = false;
  uint64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
  uint64_t bytes_out = 0, bytes_in = 0;
};

class Tally {
 public:
  explicit Tally(int precision_bits = 10);

  void Sent(int64_t lateness) { ++sent_, lateness_.Record(lateness); }
  void Add(const Outcome& outcome, const Slo& slo);
  // One that the end of the run broke off after so many ns from its intended time.
  void AddInterrupted(int64_t waited) { ++interrupted_, Waited(waited); }
  void Merge(const Tally& other);

  uint64_t sent() const { return sent_; }
  uint64_t completed() const { return completed_; }
  uint64_t failed() const;
  uint64_t interrupted() const { return interrupted_; }
  // Of e2e: requests that timed out or were interrupted, with the time waited for them.
  uint64_t lower_bounds() const { return lower_bounds_; }
  uint64_t good() const { return good_; }
  uint64_t with_usage() const { return with_usage_; }
  uint64_t prompt_tokens() const { return prompt_tokens_; }
  uint64_t output_tokens() const { return output_tokens_; }
  uint64_t cached_tokens() const { return cached_tokens_; }
  uint64_t bytes_out() const { return bytes_out_; }
  uint64_t bytes_in() const { return bytes_in_; }
  uint64_t failures(Failure kind) const { return failures_[static_cast<size_t>(kind)]; }
  uint64_t status(int code) const { return statuses_[static_cast<size_t>(code)]; }
  // Seconds from the first request's intended time to the last one's end; 0 without any.
  double Seconds() const;

  // From the intended time: TTFT, end to end. From the real one: service. Gap: between two tokens.
  // TPOT: (last token - first) / (tokens - 1). Lateness: sending after the intended time.
  const Histogram& ttft() const { return ttft_; }
  const Histogram& e2e() const { return e2e_; }
  const Histogram& service() const { return service_; }
  const Histogram& tpot() const { return tpot_; }
  const Histogram& lateness() const { return lateness_; }
  const Histogram& gap() const { return gap_; }
  Histogram* mutable_gap() { return &gap_; }

 private:
  void AddLatencies(const Outcome& outcome, const Slo& slo);
  void Waited(int64_t nanos) { ++lower_bounds_, e2e_.Record(nanos); }

  Histogram ttft_, e2e_, service_, tpot_, gap_, lateness_;
  uint64_t sent_ = 0, completed_ = 0, interrupted_ = 0, lower_bounds_ = 0, good_ = 0,
           with_usage_ = 0;
  uint64_t prompt_tokens_ = 0, output_tokens_ = 0, cached_tokens_ = 0;
  uint64_t bytes_out_ = 0, bytes_in_ = 0;
  std::array<uint64_t, kFailures> failures_{};
  std::array<uint32_t, 600> statuses_{};
  int64_t first_start_ = INT64_MAX, last_end_ = 0;
};

// The run over time, by when requests were to be sent. At most kWindows windows: when the run gets
// longer, neighbours are put together and the width doubles. Thread-compatible.
class Series {
 public:
  static constexpr size_t kWindows = 128;
  static constexpr int64_t kFirstWidth = 250'000'000;  // ns

  struct Window {
    uint64_t completed = 0, failed = 0, output_tokens = 0;
    Histogram ttft{5}, e2e{5};
  };
  void Add(const Outcome& outcome);
  void Merge(Series other);
  int64_t width() const { return width_; }
  const std::vector<Window>& windows() const { return windows_; }

 private:
  Window& At(int64_t nanos);
  void Widen();
  int64_t width_ = kFirstWidth;
  std::vector<Window> windows_;
};

}  // namespace llmd::bench
