#include "flow/flow_metrics.h"

#include <charconv>
#include <vector>

namespace llmd::sched {
namespace {

constexpr size_t kMaxNames = 1000;
constexpr size_t kMaxSeries = 4096;
constexpr char kPrefix[] = "llm_d_epp_flow_control_";

const std::vector<double>& QueueBounds() {
  static const std::vector<double> bounds = {.0001, .0005, .001, .005, .01, .025, .05, .1,
                                             .25,   .5,    1,    2.5,  5,   10,   30,  60};
  return bounds;
}
const std::vector<double>& FastBounds() {
  static const std::vector<double> bounds = {.0001, .0002, .0005, .001, .002,
                                             .005,  .01,   .02,   .05,  .1};
  return bounds;
}
const std::vector<double>& ConfirmationBounds() {
  static const std::vector<double> bounds = {.001, .005, .01, .025, .05, .1,
                                             .25,  .5,   1,   2.5,  5,   10};
  return bounds;
}

std::string Name(const char* rest) {
  return std::string(kPrefix) + rest;
}

}  // namespace

const char* OutcomeLabel(FlowOutcome outcome) {
  switch (outcome) {
    case FlowOutcome::kDispatched:
      return "Dispatched";
    case FlowOutcome::kRejectedCapacity:
      return "RejectedCapacity";
    case FlowOutcome::kRejectedNoEndpoints:
      return "RejectedNoEndpoints";
    case FlowOutcome::kRejectedShuttingDown:
      return "RejectedOther";
    case FlowOutcome::kEvictedTtl:
      return "EvictedTTL";
    case FlowOutcome::kEvictedNoEndpoints:
      return "EvictedNoEndpoints";
    case FlowOutcome::kCancelled:
      return "EvictedContextCancelled";
    case FlowOutcome::kDisplaced:
    case FlowOutcome::kShuttingDown:
      return "EvictedOther";
  }
  return "";
}

FlowMetrics::FlowMetrics(MetricsRegistry& registry, std::string pool)
    : saturation_prefill(registry.AddGauge(Name("pool_saturation"), "1 closes the gate",
                                           {{"inference_pool", pool}, {"stage", "prefill"}})),
      saturation_decode(registry.AddGauge(Name("pool_saturation"), "1 closes the gate",
                                          {{"inference_pool", pool}, {"stage", "decode"}})),
      saturation_effective(registry.AddGauge(Name("pool_saturation"), "1 closes the gate",
                                             {{"inference_pool", pool}, {"stage", "effective"}})),
      cycle(registry.AddHistogram(Name("dispatch_cycle_duration_seconds"),
                                  "Time to choose the next request", FastBounds())),
      revocations_confirmed(registry.AddCounter(
          Name("revocations_total"), "Requests taken back in flight, by how that ended",
          {{"outcome", "confirmed"}, {"inference_pool", pool}})),
      revocations_timed_out(registry.AddCounter(
          Name("revocations_total"), "Requests taken back in flight, by how that ended",
          {{"outcome", "timed_out"}, {"inference_pool", pool}})),
      reclaim_target(registry.AddGauge(Name("reclaim_target"),
                                       "Saturation above the ceiling of the demanding band",
                                       {{"inference_pool", pool}})),
      pending_reclaim(registry.AddGauge(Name("pending_reclaim"),
                                        "Saturation expected back from requests taken back",
                                        {{"inference_pool", pool}})),
      confirmation(registry.AddHistogram(Name("revocation_confirmation_seconds"),
                                         "From taking a request back to the end of its stream",
                                         ConfirmationBounds(), {{"inference_pool", pool}})),
      registry_(registry),
      pool_(std::move(pool)) {}

Labels FlowMetrics::Pool(Labels labels) const {
  labels.emplace_back("inference_pool", pool_);
  return labels;
}

std::string FlowMetrics::Fold(std::set<std::string, std::less<>>& known, std::string_view name) {
  std::string bounded = BoundedName(name);
  if (known.contains(bounded)) return bounded;
  if (known.size() >= kMaxNames) return "other";
  return *known.insert(std::move(bounded)).first;
}

const FlowSeries& FlowMetrics::Of(std::string_view flow, int priority, std::string_view model,
                                  std::string_view target) {
  char buffer[16];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, priority).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  return cache_.Of({flow, text, model, target},
                   [&]() -> FlowSeries& { return Make(flow, text, model, target); });
}

FlowSeries& FlowMetrics::Make(std::string_view flow, std::string_view priority,
                              std::string_view model, std::string_view target) {
  FlowSeries s{.flow = Fold(flows_, flow),
               .priority = std::string(priority),
               .model = Fold(models_, model),
               .target = Fold(models_, target),
               .size = nullptr,
               .bytes = nullptr};
  if (series_.size() >= kMaxSeries &&
      !series_.contains(s.flow + '\0' + s.priority + '\0' + s.model + '\0' + s.target))
    s.flow = s.model = s.target = "other";
  std::unique_ptr<FlowSeries>& slot =
      series_[s.flow + '\0' + s.priority + '\0' + s.model + '\0' + s.target];
  if (slot) return *slot;
  const Labels labels = {{"fairness_id", s.flow},
                         {"priority", s.priority},
                         {"inference_pool", pool_},
                         {"model_name", s.model},
                         {"target_model_name", s.target}};
  s.size = &registry_.AddGauge(Name("queue_size"), "Requests waiting", labels);
  s.bytes = &registry_.AddGauge(Name("queue_bytes"), "Bytes of the requests waiting", labels);
  slot = std::make_unique<FlowSeries>(std::move(s));
  return *slot;
}

void FlowMetrics::Left(const FlowSeries& series, FlowOutcome outcome, double waited_seconds) {
  Histogram*& waited = series.waited[static_cast<size_t>(outcome)];
  if (waited == nullptr) {
    waited = &registry_.AddHistogram(Name("request_queue_duration_seconds"), "Time in flow control",
                                     QueueBounds(),
                                     {{"fairness_id", series.flow},
                                      {"priority", series.priority},
                                      {"outcome", OutcomeLabel(outcome)},
                                      {"inference_pool", pool_},
                                      {"model_name", series.model},
                                      {"target_model_name", series.target}});
  }
  waited->Observe(waited_seconds);
  Counter*& left = series.left[static_cast<size_t>(outcome)];
  if (left == nullptr) {
    left = &registry_.AddCounter(
        Name("requests_total"), "Requests that left flow control",
        Pool({{"outcome", OutcomeLabel(outcome)}, {"priority", series.priority}}));
  }
  left->Add();
}

void FlowMetrics::Enqueued(const FlowSeries& series, const FlowOutcome* outcome, double seconds) {
  const size_t at = outcome ? static_cast<size_t>(*outcome) : kFlowOutcomes;
  Histogram*& histogram = series.enqueue[at];
  if (histogram == nullptr) {
    histogram = &registry_.AddHistogram(
        Name("request_enqueue_duration_seconds"), "Time to take a request in", FastBounds(),
        {{"fairness_id", series.flow},
         {"priority", series.priority},
         {"outcome", outcome ? OutcomeLabel(*outcome) : "NotYetFinalized"}});
  }
  histogram->Observe(seconds);
}

void FlowMetrics::Use(int priority, double requests, double bytes) {
  const auto [it, fresh] = bands_.try_emplace(priority);
  if (fresh) {
    const Labels labels = Pool({{"priority", std::to_string(priority)}});
    it->second = {&registry_.AddGauge(Name("capacity_utilization_requests"),
                                      "Share of the band's requests in use", labels),
                  &registry_.AddGauge(Name("capacity_utilization_bytes"),
                                      "Share of the band's bytes in use", labels)};
  }
  it->second.requests->Set(requests);
  it->second.bytes->Set(bytes);
}

void FlowMetrics::GlobalUse(double requests, double bytes, double max_requests, double max_bytes) {
  if (max_requests > 0) {
    if (global_requests_ == nullptr) {
      global_requests_ = &registry_.AddGauge(Name("global_capacity_utilization_requests"),
                                             "Share of maxRequests in use", Pool({}));
    }
    global_requests_->Set(requests / max_requests);
  }
  if (max_bytes > 0) {
    if (global_bytes_ == nullptr) {
      global_bytes_ = &registry_.AddGauge(Name("global_capacity_utilization_bytes"),
                                          "Share of maxBytes in use", Pool({}));
    }
    global_bytes_->Set(bytes / max_bytes);
  }
}

Counter& FlowMetrics::RevocationsIssued(int priority) {
  return registry_.AddCounter(Name("revocations_issued_total"),
                              "Requests taken back in flight, by the demanding band",
                              Pool({{"priority", std::to_string(priority)}}));
}

}  // namespace llmd::sched
