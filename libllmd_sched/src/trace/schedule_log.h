// The documented log lines of a scheduling pass (level 4), kept apart so that the pass reads as
// what it does. Each function does nothing when the request has no logger.
#pragma once

#include <span>

#include "config/graph.h"
#include "trace/record.h"

namespace llmd::sched::schedule_log {

void Line(const RequestContext& request, std::string_view msg);
void LineWith(const RequestContext& request, std::string_view msg, std::string_view key,
              const Plugin& plugin);
void LineWithPods(const RequestContext& request, std::string_view msg, const Snapshot& snapshot,
                  std::span<const uint32_t> pods);
void FilterResult(const RequestContext& request, const Plugin& filter, const Snapshot& snapshot,
                  std::span<const uint32_t> pods);
void BeforePicker(const RequestContext& request, const Snapshot& snapshot,
                  const ProfileRecord& record);
void AfterPicker(const RequestContext& request, const Snapshot& snapshot,
                 const ProfileRecord& record);

// Nothing for a status that is ok.
void ProducerFailed(const RequestContext& request, const Plugin& producer, const Status& status);

// {"ns/name": score, …}; what was not scored is 0.
json::Value ScoreMap(const Snapshot& snapshot, std::span<const uint32_t> pods,
                     std::span<const double> scores);
// One endpoint with its metrics, under the keys of the field's logs.
json::Value Pod(const Snapshot& snapshot, uint32_t index);

}  // namespace llmd::sched::schedule_log
