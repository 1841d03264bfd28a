#include "testing/inputs.h"

#include <bit>

namespace llmd::sched::testing {
namespace {

// NaN is a value like others here.
std::string Bytes(double v) {
  return std::to_string(std::bit_cast<uint64_t>(v)) + " ";
}
std::string Bytes(const std::string& v) {
  return std::to_string(v.size()) + ":" + v;
}
std::string Bytes(uint64_t v) {
  return std::to_string(v) + " ";
}
std::string Bytes(uint32_t v) {
  return Bytes(uint64_t{v});
}
std::string Bytes(uint8_t v) {
  return Bytes(uint64_t{v});
}
std::string Bytes(TimePoint v) {
  return Bytes(static_cast<uint64_t>(v.time_since_epoch().count()));
}
std::string Bytes(const LatencyPrediction& p);
std::string Bytes(const Attribute& a);

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  std::string out = Bytes(uint64_t{values.size()});
  for (const T& v : values) out += Bytes(v);
  return out;
}

std::string Bytes(const LatencyPrediction& p) {
  return Bytes(p.ttft_ms) + Bytes(p.tpot_ms);
}
std::string Bytes(const Attribute& a) {
  return Bytes(uint64_t{a.present}) + Bytes(a.total) + Bytes(a.block_size) + Bytes(a.padding) +
         Bytes(a.per_endpoint) + Bytes(a.second) + Bytes(a.offloaded) + Bytes(a.tokens) +
         Bytes(a.hashes) + Bytes(a.text) + Bytes(a.latency);
}
std::string Bytes(const EndpointInfo& e) {
  std::string out = Bytes(e.FullName()) + Bytes(e.HostPort());
  for (const auto& [key, value] : e.labels) out += Bytes(key) + Bytes(value);
  return out;
}
std::string Bytes(const EndpointMetrics& m) {
  return Bytes(m.waiting) + Bytes(m.running) + Bytes(m.kv_usage) + Bytes(m.active_models) +
         Bytes(m.waiting_models);
}

std::string Bytes(const HeaderList& headers) {
  std::string out;
  for (const auto& [name, value] : headers) out += Bytes(name) + Bytes(value);
  return out;
}

using Parts = std::vector<std::pair<std::string, std::string>>;

void AddRequest(const RequestContext& r, Parts& out) {
  const auto add = [&](const char* name, std::string bytes) {
    out.emplace_back(std::string("the request's ") + name, std::move(bytes));
  };
  add("ids", Bytes(r.id) + Bytes(r.request_id));
  add("path", Bytes(r.path));
  add("headers", r.headers ? Bytes(*r.headers) : "");
  add("body", Bytes(std::string(r.body)));
  add("model", Bytes(r.model));
  add("target_model", Bytes(r.target_model));
  add("max_tokens", Bytes(static_cast<uint64_t>(r.max_tokens)));
  add("prompt", Bytes(std::string(r.prompt_json)) + Bytes(r.prompt_tokens));
  add("fairness_id and objective", Bytes(r.fairness_id) + Bytes(r.objective));
  add("priority", std::to_string(r.priority));
  add("SLOs", Bytes(r.slo_ttft_ms) + Bytes(r.slo_tpot_ms));
  add("eligible endpoints", Bytes(r.eligible) + std::to_string(r.peer));
  add("facts (attributes)", Bytes(r.attributes));
}

void AddSnapshot(const Snapshot& s, Parts& out) {
  const auto add = [&](const char* name, std::string bytes) {
    out.emplace_back(std::string("the snapshot's ") + name, std::move(bytes));
  };
  std::string endpoints, metrics;
  for (size_t i = 0; i < s.size(); ++i) endpoints += Bytes(s.info(i));
  for (const auto& m : s.metrics) metrics += m ? Bytes(*m) : "";
  add("endpoints", std::move(endpoints));
  add("metrics", std::move(metrics));
  add("waiting", Bytes(s.waiting));
  add("running", Bytes(s.running));
  add("kv_usage", Bytes(s.kv_usage));
  add("times of scrapes", Bytes(s.updated) + Bytes(s.stale));
  add("attributes", Bytes(s.attributes));
}

Parts PartsOf(const Scene& scene) {
  Parts out;
  AddRequest(scene.request, out);
  AddSnapshot(scene.snapshot, out);
  return out;
}

}  // namespace

Inputs::Inputs(const Scene& scene) : parts_(PartsOf(scene)) {}

std::string Inputs::Changed(const Scene& scene) const {
  const Parts now = PartsOf(scene);
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i].second != parts_[i].second) return now[i].first;
  }
  return "";
}

}  // namespace llmd::sched::testing
