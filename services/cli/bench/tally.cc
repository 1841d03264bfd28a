#include "cli/bench/tally.h"

#include <algorithm>
#include <numeric>

namespace llmd::bench {
namespace {

void Add(Series::Window& to, const Series::Window& from) {
  to.completed += from.completed;
  to.failed += from.failed;
  to.output_tokens += from.output_tokens;
  to.ttft.Merge(from.ttft);
  to.e2e.Merge(from.e2e);
}

bool Within(int64_t nanos, Duration limit) {
  return limit.count() == 0 || nanos <= limit.count();
}

// Nobody knows how long these would have taken: at least as long as was waited. Without them a
// server that stands still would have a clean tail.
bool IsTimeout(Failure failure) {
  return failure == Failure::kTimeout || failure == Failure::kConnectTimeout;
}

}  // namespace

std::string_view Name(Failure failure) {
  constexpr std::string_view kNames[kFailures] = {
      "none",    "refused",  "connect", "connect_timeout", "tls",        "reset", "closed",
      "timeout", "protocol", "status",  "stream_error",    "stream_cut", "local"};
  return kNames[static_cast<size_t>(failure)];
}

Tally::Tally(int precision_bits)
    : ttft_(precision_bits),
      e2e_(precision_bits),
      service_(precision_bits),
      tpot_(precision_bits),
      gap_(precision_bits),
      lateness_(precision_bits) {}

void Tally::Add(const Outcome& outcome, const Slo& slo) {
  first_start_ = std::min(first_start_, outcome.intended);
  last_end_ = std::max(last_end_, outcome.end);
  bytes_out_ += outcome.bytes_out;
  bytes_in_ += outcome.bytes_in;
  if (outcome.failure != Failure::kNone) {
    ++failures_[static_cast<size_t>(outcome.failure)];
    if (outcome.failure == Failure::kStatus) ++statuses_[static_cast<size_t>(outcome.status)];
    if (IsTimeout(outcome.failure)) Waited(outcome.end - outcome.intended);
    return;
  }
  ++completed_;
  with_usage_ += outcome.has_usage ? 1 : 0;
  prompt_tokens_ += outcome.prompt_tokens;
  output_tokens_ += outcome.output_tokens;
  cached_tokens_ += outcome.cached_tokens;
  AddLatencies(outcome, slo);
}

void Tally::AddLatencies(const Outcome& outcome, const Slo& slo) {
  const int64_t e2e = outcome.end - outcome.intended;
  e2e_.Record(e2e);
  service_.Record(outcome.end - outcome.sent);
  int64_t ttft = 0, tpot = 0;
  if (outcome.first_token != 0) {
    ttft = outcome.first_token - outcome.intended;
    ttft_.Record(ttft);
    if (outcome.output_tokens > 1) {
      tpot = (outcome.last_token - outcome.first_token) /
             static_cast<int64_t>(outcome.output_tokens - 1);
      tpot_.Record(tpot);
    }
  }
  // An answer without a first token has missed a limit that is set for it.
  const bool first_in_time =
      slo.ttft.count() == 0 || (outcome.first_token != 0 && Within(ttft, slo.ttft));
  good_ += first_in_time && Within(tpot, slo.tpot) && Within(e2e, slo.e2e) ? 1 : 0;
}

uint64_t Tally::failed() const {
  return std::accumulate(failures_.begin(), failures_.end(), uint64_t{0});
}

double Tally::Seconds() const {
  return last_end_ > first_start_ ? static_cast<double>(last_end_ - first_start_) * 1e-9 : 0;
}

void Tally::Merge(const Tally& other) {
  ttft_.Merge(other.ttft_);
  e2e_.Merge(other.e2e_);
  service_.Merge(other.service_);
  tpot_.Merge(other.tpot_);
  gap_.Merge(other.gap_);
  lateness_.Merge(other.lateness_);
  sent_ += other.sent_;
  completed_ += other.completed_;
  interrupted_ += other.interrupted_;
  lower_bounds_ += other.lower_bounds_;
  good_ += other.good_;
  with_usage_ += other.with_usage_;
  prompt_tokens_ += other.prompt_tokens_;
  output_tokens_ += other.output_tokens_;
  cached_tokens_ += other.cached_tokens_;
  bytes_out_ += other.bytes_out_;
  bytes_in_ += other.bytes_in_;
  for (size_t i = 0; i < failures_.size(); ++i) failures_[i] += other.failures_[i];
  for (size_t i = 0; i < statuses_.size(); ++i) statuses_[i] += other.statuses_[i];
  first_start_ = std::min(first_start_, other.first_start_);
  last_end_ = std::max(last_end_, other.last_end_);
}

void Series::Add(const Outcome& outcome) {
  Window& window = At(std::max<int64_t>(0, outcome.intended));
  if (outcome.failure != Failure::kNone) {
    ++window.failed;
    if (IsTimeout(outcome.failure)) window.e2e.Record(outcome.end - outcome.intended);
    return;
  }
  ++window.completed;
  window.output_tokens += outcome.output_tokens;
  window.e2e.Record(outcome.end - outcome.intended);
  if (outcome.first_token != 0) window.ttft.Record(outcome.first_token - outcome.intended);
}

Series::Window& Series::At(int64_t nanos) {
  while (nanos / width_ >= static_cast<int64_t>(kWindows)) Widen();
  const auto index = static_cast<size_t>(nanos / width_);
  if (index >= windows_.size()) windows_.resize(index + 1);
  return windows_[index];
}

void Series::Widen() {
  width_ *= 2;
  std::vector<Window> half((windows_.size() + 1) / 2);
  for (size_t i = 0; i < windows_.size(); ++i) bench::Add(half[i / 2], windows_[i]);
  windows_ = std::move(half);
}

void Series::Merge(Series other) {
  while (width_ < other.width_) Widen();
  while (other.width_ < width_) other.Widen();
  if (windows_.size() < other.windows_.size()) windows_.resize(other.windows_.size());
  for (size_t i = 0; i < other.windows_.size(); ++i) bench::Add(windows_[i], other.windows_[i]);
}

}  // namespace llmd::bench
