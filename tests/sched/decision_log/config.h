// What decision_log schedules with.
#pragma once

#include <string_view>

namespace llmd::sched {

// Prefill/decode over three scored profiles: filters and scorers that compute, pickers that draw.
inline constexpr std::string_view kDecisionLogConfig = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: prefix-cache-affinity-filter}
- {type: prefix-cache-scorer}
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: lora-affinity-scorer}
- {type: session-affinity-scorer, parameters: {strategy: session_id, evictionTtlSeconds: 20}}
- {type: active-request-scorer}
- {type: token-load-scorer}
- {type: load-aware-scorer}
- {type: latency-scorer}
- {type: no-hit-lru-scorer}
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}
- {type: weighted-random-picker}
- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 64, promptTokens: 128}}
- {type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}}}
schedulingProfiles:
- name: prefill
  plugins:
  - {pluginRef: prefill-filter}
  - {pluginRef: queue-scorer}
  - {pluginRef: prefix-cache-scorer, weight: 0.3}
  - {pluginRef: token-load-scorer, weight: 0.7}
  - {pluginRef: no-hit-lru-scorer, weight: 0.1}
  - {pluginRef: weighted-random-picker}
- name: decode
  plugins:
  - {pluginRef: decode-filter}
  - {pluginRef: prefix-cache-affinity-filter}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: queue-scorer, weight: 1.1}
  - {pluginRef: kv-cache-utilization-scorer, weight: 0.9}
  - {pluginRef: lora-affinity-scorer, weight: 0.77}
  - {pluginRef: session-affinity-scorer, weight: 2}
  - {pluginRef: active-request-scorer, weight: 0.33}
  - {pluginRef: load-aware-scorer, weight: 0.45}
  - {pluginRef: latency-scorer, weight: 0.6}
  - {pluginRef: max-score-picker}
)";

}  // namespace llmd::sched
