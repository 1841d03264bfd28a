#include "trace/schedule_log.h"

#include <cmath>

namespace llmd::sched::schedule_log {
namespace {

json::Value Names(const std::vector<std::string>& names) {
  json::Object out;
  for (const std::string& name : names) out.emplace_back(name, 0);
  return out;
}

json::Value Pods(const Snapshot& snapshot, std::span<const uint32_t> pods) {
  json::Array out;
  for (uint32_t pod : pods) out.push_back(Pod(snapshot, pod));
  return out;
}

}  // namespace

json::Value Pod(const Snapshot& snapshot, uint32_t index) {
  const EndpointInfo& info = snapshot.info(index);
  const EndpointMetrics& m = *snapshot.metrics[index];
  json::Object labels;
  for (const auto& [key, value] : info.labels) labels.emplace_back(key, value);
  return json::Object{
      {"NamespacedName", json::Object{{"Namespace", info.ns}, {"Name", info.name}}},
      {"Address", info.address},
      {"Port", static_cast<int>(info.port)},
      {"Role", snapshot.set->roles[index] == kRolePrefill ? 0 : 1},
      {"Labels", std::move(labels)},
      {"ActiveModels", Names(m.active_models)},
      {"WaitingModels", Names(m.waiting_models)},
      {"MaxActiveModels", m.max_active_models},
      {"RunningQueueSize", m.running},
      {"WaitingQueueSize", m.waiting},
      {"KVCacheUsagePercent", m.kv_usage},
      {"KvCacheMaxTokenCapacity", static_cast<int64_t>(m.block_size) * m.num_blocks},
      {"UpdateTime", static_cast<int64_t>(m.updated.time_since_epoch().count())},
  };
}

json::Value ScoreMap(const Snapshot& snapshot, std::span<const uint32_t> pods,
                     std::span<const double> scores) {
  json::Object out;
  for (size_t i = 0; i < pods.size(); ++i) {
    out.emplace_back(snapshot.set->names[pods[i]], std::isnan(scores[i]) ? 0.0 : scores[i]);
  }
  return out;
}

void Line(const RequestContext& request, std::string_view msg) {
  if (request.log) request.log->Log(LogLevel::kDebug, msg, {{"request", request.Describe(false)}});
}

void LineWith(const RequestContext& request, std::string_view msg, std::string_view key,
              const Plugin& plugin) {
  if (!request.log) return;
  request.log->Log(LogLevel::kDebug, msg,
                   {{"request", request.Describe(false)}, {key, plugin.name()}});
}

void LineWithPods(const RequestContext& request, std::string_view msg, const Snapshot& snapshot,
                  std::span<const uint32_t> pods) {
  if (!request.log) return;
  request.log->Log(LogLevel::kDebug, msg,
                   {{"request", request.Describe(false)}, {"pods", Pods(snapshot, pods)}});
}

void FilterResult(const RequestContext& request, const Plugin& filter, const Snapshot& snapshot,
                  std::span<const uint32_t> pods) {
  if (!request.log) return;
  request.log->Log(LogLevel::kDebug, "Filter plugin result",
                   {{"request", request.Describe(false)},
                    {"plugin", filter.name()},
                    {"pods", Pods(snapshot, pods)}});
}

void BeforePicker(const RequestContext& request, const Snapshot& snapshot,
                  const ProfileRecord& record) {
  if (!request.log) return;
  request.log->Log(LogLevel::kDebug, "Before running picker plugin",
                   {{"request", request.Describe(false)},
                    {"pods", ScoreMap(snapshot, record.candidates, record.totals)}});
}

void AfterPicker(const RequestContext& request, const Snapshot& snapshot,
                 const ProfileRecord& record) {
  if (!request.log || record.picked.empty()) return;
  double score = 0;
  for (size_t i = 0; i < record.candidates.size(); ++i) {
    if (record.candidates[i] == record.picked[0]) score = record.totals[i];
  }
  json::Value target = json::Object{{"Pod", Pod(snapshot, record.picked[0])}, {"Score", score}};
  json::Value result = json::Object{{"TargetPod", std::move(target)}, {"MutatedHeaders", nullptr}};
  request.log->Log(LogLevel::kDebug, "After running picker plugin",
                   {{"request", request.Describe(false)}, {"result", std::move(result)}});
}

void ProducerFailed(const RequestContext& request, const Plugin& producer, const Status& status) {
  if (status.ok() || !request.log) return;
  request.log->Log(LogLevel::kDebug, "Data producer failed",
                   {{"plugin", producer.name()}, {"error", status.ToString()}});
}

}  // namespace llmd::sched::schedule_log
