#include "common/request_series.h"

#include <algorithm>

namespace llmd::services {
namespace {

// As vLLM has them.
const std::vector<double> kTtft = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                   0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                   20,    40,    80,   160,  640,  2560};
// As the field's picker has them.
const std::vector<double> kGap = {.001, .005, .01, .02, .04, .06, .08, .1,
                                  .15,  .2,   .3,  .5,  .75, 1,   2};
const std::vector<double> kQueue = {.0001, .0005, .001, .005, .01, .05, .1, .25,
                                    .5,    1,     2.5,  5,    10,  30,  60};
const std::vector<double> kWhole = {.005, .025, .1, .25, .5,  1,   2.5, 5,
                                    10,   30,   60, 120, 300, 600, 1800};
constexpr size_t kMaxStatuses = 32;  // of one series

std::string_view Cut(std::string_view name) {
  if (name.size() <= NameCap::kMaxBytes) return name;
  size_t end = NameCap::kMaxBytes;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;
  return name.substr(0, end);
}

Labels With(Labels labels, std::string name, std::string value) {
  labels.emplace_back(std::move(name), std::move(value));
  return labels;
}

}  // namespace

bool NameCap::Has(std::string_view name, bool admit) {
  const std::lock_guard lock(mutex_);
  if (names_.contains(name)) return true;
  if (!admit || names_.size() >= most_) return false;
  names_.emplace(name);
  full_.store(names_.size() >= most_, std::memory_order_release);
  return true;
}

std::string_view NameCap::Reader::Of(std::string_view given, bool admit) {
  const std::string_view name = Cut(given);
  if (name.empty()) return name;
  const auto found = known_.find(name);
  if (found != known_.end()) return *found;
  if (complete_) return kOther;
  if (cap_.full_.load(std::memory_order_acquire)) {
    const std::lock_guard lock(cap_.mutex_);
    known_ = cap_.names_;
    complete_ = true;
  } else if (cap_.Has(name, admit)) {
    known_.emplace(name);
  }
  const auto now = known_.find(name);
  return now != known_.end() ? std::string_view(*now) : kOther;
}

void LocalCounter::HandOver() {
  if (value_ == 0) return;
  to_.Add(value_);
  value_ = 0;
}

LocalHistogram::LocalHistogram(Histogram& to) : to_(to), buckets_(to.bounds().size() + 1) {}

void LocalHistogram::Observe(double v) {
  const std::vector<double>& bounds = to_.bounds();
  const auto at = std::lower_bound(bounds.begin(), bounds.end(), v) - bounds.begin();
  Bucket& bucket = buckets_[static_cast<size_t>(at)];
  ++bucket.count;
  bucket.sum += v;
  any_ = true;
}

// Each bucket's values go over as so many times their mean, which lies in it and keeps the sum.
void LocalHistogram::HandOver() {
  if (!any_) return;
  any_ = false;
  const std::vector<double>& bounds = to_.bounds();
  for (size_t i = 0; i < buckets_.size(); ++i) {
    Bucket& bucket = buckets_[i];
    if (bucket.count == 0) continue;
    double mean = bucket.sum / static_cast<double>(bucket.count);
    if (i < bounds.size()) mean = std::min(mean, bounds[i]);  // rounding
    to_.Observe(mean, bucket.count);
    bucket = {};
  }
}

RequestSeries::RequestSeries(MetricsRegistry& registry, std::string prefix, std::string requests,
                             std::array<std::string, 3> labels)
    : registry_(registry),
      prefix_(std::move(prefix)),
      requests_(std::move(requests)),
      labels_(std::move(labels)) {
  (void)AddTimes(Named({}));
}

Counter& RequestSeries::AddTokens(const Labels& labels, const char* type) {
  return registry_.AddCounter(
      prefix_ + "tokens_total",
      "Tokens as the answers' usage says; `estimated`: events with data, of "
      "streams that carry no usage.",
      With(labels, "type", type));
}

Labels RequestSeries::Named(const Values& values) const {
  Labels out;
  for (size_t i = 0; i < labels_.size(); ++i) out.emplace_back(labels_[i], values[i]);
  return out;
}

bool RequestSeries::Admit(const Values& values) {
  const std::lock_guard lock(mutex_);
  if (admitted_.contains(values)) return true;
  if (admitted_.size() >= kMaxSeries) return false;
  admitted_.insert(values);
  full_.store(admitted_.size() >= kMaxSeries, std::memory_order_release);
  return true;
}

std::vector<RequestSeries::Values> RequestSeries::All() {
  const std::lock_guard lock(mutex_);
  return {admitted_.begin(), admitted_.end()};
}

RequestSeries::Times RequestSeries::AddTimes(const Labels& labels) {
  const auto add = [&](const char* name, const char* help,
                       const std::vector<double>& bounds) -> Histogram& {
    return registry_.AddHistogram(prefix_ + name, help, bounds, labels);
  };
  return {.ttft = add("ttft_seconds", "From the request's head to the first byte of its answer.",
                      kTtft),
          .gap = add("event_gap_seconds", "Between two pieces of an event stream.", kGap),
          .queue =
              add("queue_seconds", "From the whole request to its first leg to an engine.", kQueue),
          .whole =
              add("request_duration_seconds", "From the request's head to its last byte.", kWhole)};
}

RequestShard::Series::Series(RequestSeries& all, const RequestSeries::Times& times, Labels labels)
    : ttft(times.ttft),
      gap(times.gap),
      queue(times.queue),
      whole(times.whole),
      request_bytes(all.registry_.AddCounter(all.prefix_ + "request_body_bytes_total",
                                             "Bytes of requests' bodies.", labels)),
      response_bytes(all.registry_.AddCounter(all.prefix_ + "answer_body_bytes_total",
                                              "Bytes of answers' bodies.", labels)),
      prompt_tokens(all.AddTokens(labels, "prompt")),
      completion_tokens(all.AddTokens(labels, "completion")),
      estimated_tokens(all.AddTokens(labels, "estimated")),
      all_(all),
      labels_(std::move(labels)) {}

void RequestShard::Series::Request(int status) {
  for (ByStatus& each : requests_) {
    if (each.status == status) return each.count.Add();
  }
  if (requests_.size() >= kMaxStatuses) status = -1;
  const std::string text = status < 0 ? std::string(kOther) : std::to_string(status);
  Counter& counter = all_.registry_.AddCounter(all_.prefix_ + all_.requests_,
                                               "Requests by the status sent; 0 = the client left "
                                               "first.",
                                               With(labels_, "status", text));
  requests_.push_back({status, LocalCounter(counter)});
  requests_.back().count.Add();
}

void RequestShard::Series::HandOver() {
  touched_ = false;
  for (LocalHistogram* each : {&ttft, &gap, &queue, &whole}) each->HandOver();
  for (LocalCounter* each :
       {&request_bytes, &response_bytes, &prompt_tokens, &completion_tokens, &estimated_tokens})
    each->HandOver();
  for (ByStatus& each : requests_) each.count.HandOver();
}

void RequestShard::KeyOf(const RequestSeries::LabelValues& values, std::string& key) {
  key.clear();
  for (const std::string_view value : values) key.append(value).append(1, '\0');
}

RequestShard::Series& RequestShard::Make(const RequestSeries::Values& values) {
  std::string key;
  KeyOf({values[0], values[1], values[2]}, key);
  std::unique_ptr<Series>& made = series_[std::move(key)];
  if (made == nullptr) {
    const Labels labels = all_.Named(values);
    made.reset(new Series(all_, all_.AddTimes(labels), labels));
  }
  return *made;
}

// Of labels that this loop has not seen.
RequestShard::Series& RequestShard::Meet(const RequestSeries::LabelValues& values) {
  RequestSeries::Values own;
  for (size_t i = 0; i < own.size(); ++i) own[i] = values[i];
  if (!complete_ && all_.full_.load(std::memory_order_acquire)) {
    for (const RequestSeries::Values& each : all_.All()) Make(each);
    complete_ = true;
    if (const auto found = series_.find(key_); found != series_.end()) return *found->second;
  }
  if (complete_ || !all_.Admit(own)) own.fill(std::string(kOther));
  return Make(own);
}

RequestShard::Series& RequestShard::Of(const RequestSeries::LabelValues& values) {
  KeyOf(values, key_);
  const auto found = series_.find(key_);
  return found != series_.end() ? *found->second : Meet(values);
}

void RequestShard::HandOver() {
  for (Series* each : touched_) each->HandOver();
  touched_.clear();
}

}  // namespace llmd::services
