#include "builtin.h"

#include <utility>

namespace llmd::sched {

PluginRegistry BuiltinPlugins() {
  PluginRegistry registry;
  for (auto add : {RegisterRoleFilters,
                   RegisterLabelFilters,
                   RegisterContextLengthAware,
                   RegisterQueueScorer,
                   RegisterKvCacheUtilizationScorer,
                   RegisterLoadAwareScorer,
                   RegisterActiveRequestScorer,
                   RegisterTokenLoadScorer,
                   RegisterPrefixCacheScorer,
                   RegisterNoHitLruScorer,
                   RegisterLoraAffinityScorer,
                   RegisterSessionAffinity,
                   RegisterMaxScorePicker,
                   RegisterRandomPickers,
                   RegisterSingleProfileHandler,
                   RegisterDisaggProfileHandler,
                   RegisterPdDeciders,
                   RegisterOpenAiParser,
                   RegisterPassthroughParser,
                   RegisterTokenProducer,
                   RegisterApproxPrefixCacheProducer,
                   RegisterInflightLoadProducer,
                   RegisterSessionIdProducer,
                   RegisterMetricsDataSource,
                   RegisterCoreMetricsExtractor,
                   RegisterFileDiscovery,
                   RegisterGlobalStrictFairnessPolicy,
                   RegisterRoundRobinFairnessPolicy,
                   RegisterDeficitRoundRobinFairnessPolicy,
                   RegisterVirtualTokenCounterFairnessPolicy,
                   RegisterProgramAwareFairness,
                   RegisterFcfsOrderingPolicy,
                   RegisterEdfOrderingPolicy,
                   RegisterSloDeadlineOrderingPolicy,
                   RegisterStaticUsageLimitPolicy,
                   RegisterSoftReflectiveCeilingPolicy,
                   RegisterSheddableEvictionFilter,
                   RegisterPriorityThenTimeEvictionOrderPolicy,
                   RegisterUtilizationDetector,
                   RegisterConcurrencyDetector,
                   RegisterPrefixCacheAffinityFilter,
                   RegisterUtilizationFilter,
                   RegisterHeaderBasedTestingFilter,
                   RegisterHeaderLabelAffinityScorer,
                   RegisterProbabilisticAdmitter,
                   RegisterAgentIdentity,
                   RegisterHeaderProfileHandler,
                   RegisterDataParallelProfileHandler,
                   RegisterPriorityHoldbackPolicy,
                   RegisterRequestAttributeReporter,
                   RegisterDestinationEndpointServedVerifier,
                   RegisterModelsData,
                   RegisterDcgmData,
                   RegisterNotificationSources,
                   RegisterTopologyExtractor,
                   RegisterTopologyAffinityFilter,
                   RegisterTopologyAffinityScorer,
                   RegisterEndpointAttributeFilter,
                   RegisterEndpointAttributeScorer,
                   RegisterPredictedLatencyProducer,
                   RegisterLatencyScorer,
                   RegisterSloHeadroomTierFilter,
                   RegisterLatencySloAdmitter}) {
    LLMD_CHECK(add(registry).ok());
  }
  return registry;
}

}  // namespace llmd::sched
