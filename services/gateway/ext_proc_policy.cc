#include "gateway/ext_proc_policy.h"

#include <algorithm>

namespace llmd::gateway {

ExtProcMetrics::ExtProcMetrics(MetricsRegistry& r)
    : lost(r.AddCounter("llmd_gateway_picker_lost_total",
                        "Requests whose endpoint picker broke off or gave no sign of life.")),
      alone(r.AddCounter("llmd_gateway_without_picker_total",
                         "Requests sent on without a picker (--epp-failure-mode=open).")),
      asking(r.AddHistogram("llmd_gateway_picker_seconds",
                            "From request head to the endpoint picker's routing.",
                            {.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 60})) {
}

void ExtProcMetrics::Asked(Duration waited) {
  asking.Observe(std::chrono::duration<double>(waited).count());
}

ExtProcPolicy::ExtProcPolicy(const PolicyParts& parts, ExtProcParts& own, PickerClient& client,
                             relay::Loop& loop)
    : PolicyBase(parts, loop), own_(own), client_(client), ejected_(parts.health.Ejected()) {
  for (const std::string& address : own.options.endpoints) {
    const auto target = relay::Target::Parse(address);
    if (target.ok()) book_.Learn(*target, address, TimePoint());
  }
}

const std::vector<PolicyBase::Key>& ExtProcPolicy::Ejected() {
  if (const uint64_t version = parts().health.version(); version != ejected_version_) {
    ejected_version_ = version;
    ejected_ = parts().health.Ejected();
  }
  return *ejected_;
}

bool ExtProcPolicy::IsEjected(const relay::Target& target) {
  const std::vector<Key>& out = Ejected();
  return !out.empty() && std::binary_search(out.begin(), out.end(), EndpointBook::KeyOf(target));
}

bool ExtProcPolicy::PickerIsLost(TimePoint now) const {
  return client_.unanswered_since() <= now - own_.options.timeout / 2;
}

PolicyBase::Request& ExtProcPolicy::Take() {
  if (free_.empty()) {
    calls_.push_back(std::make_unique<ExtProcCall>(*this));
    free_.push_back(calls_.back().get());
  }
  ExtProcCall* const call = free_.back();
  free_.pop_back();
  return *call;
}

void ExtProcPolicy::Give(Request& request) {
  free_.push_back(&static_cast<ExtProcCall&>(request));
}

void ExtProcPolicy::Serve(relay::Call& call, Request&) {
  Mine(call).Begin(call);
}

void ExtProcPolicy::LegFailed(relay::Call& call, Request&, relay::Failure failure,
                              std::string_view) {
  Mine(call).OnFailure(failure);
}

void ExtProcPolicy::SetAside(relay::Call& call, Request&) {
  Mine(call).OnSetAside();
}

void ExtProcPolicy::OnResponseHead(relay::Call& call, const http::ResponseView& head) {
  observer().Answering(Of(call).record, head);
  Mine(call).OnResponseHead(head);
}

relay::Piece ExtProcPolicy::OnResponseBytes(relay::Call& call, std::string_view piece, bool end) {
  observer().Piece(Of(call).record, call.now(), piece, end);
  return Mine(call).OnResponseBytes(piece, end);
}

void ExtProcPolicy::OnTimer(relay::Call& call) {
  Mine(call).OnTimer();
}

bool ExtProcPolicy::Ended(relay::Call&, Request& request, const relay::Outcome& outcome) {
  static_cast<ExtProcCall&>(request).End(outcome.whole);
  return true;
}

PolicyBase::Key ExtProcPolicy::Answering(const Request& request, relay::Target* target) const {
  *target = static_cast<const ExtProcCall&>(request).target();
  return EndpointBook::KeyOf(*target);
}

void ExtProcPolicy::OnTick() {
  PolicyBase::OnTick();
  client_.OnTick();
  // One that stood still is found again.
  if (client_.unanswered_since() != TimePoint::max()) client_.Probe();
}

}  // namespace llmd::gateway
