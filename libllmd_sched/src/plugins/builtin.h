// One function per file of this folder; builtin.cc calls them all. (Self-registration would be
// dropped by the linker.)
#pragma once

#include "llmd/sched/plugin.h"

namespace llmd::sched {

Status RegisterRoleFilters(PluginRegistry& registry);
Status RegisterLabelFilters(PluginRegistry& registry);
Status RegisterContextLengthAware(PluginRegistry& registry);
Status RegisterQueueScorer(PluginRegistry& registry);
Status RegisterKvCacheUtilizationScorer(PluginRegistry& registry);
Status RegisterLoadAwareScorer(PluginRegistry& registry);
Status RegisterActiveRequestScorer(PluginRegistry& registry);
Status RegisterTokenLoadScorer(PluginRegistry& registry);
Status RegisterPrefixCacheScorer(PluginRegistry& registry);
Status RegisterNoHitLruScorer(PluginRegistry& registry);
Status RegisterLoraAffinityScorer(PluginRegistry& registry);
Status RegisterSessionAffinity(PluginRegistry& registry);
Status RegisterMaxScorePicker(PluginRegistry& registry);
Status RegisterRandomPickers(PluginRegistry& registry);
Status RegisterSingleProfileHandler(PluginRegistry& registry);
Status RegisterDisaggProfileHandler(PluginRegistry& registry);
Status RegisterPdDeciders(PluginRegistry& registry);
Status RegisterOpenAiParser(PluginRegistry& registry);
Status RegisterPassthroughParser(PluginRegistry& registry);
Status RegisterTokenProducer(PluginRegistry& registry);
Status RegisterApproxPrefixCacheProducer(PluginRegistry& registry);
Status RegisterInflightLoadProducer(PluginRegistry& registry);
Status RegisterSessionIdProducer(PluginRegistry& registry);
Status RegisterMetricsDataSource(PluginRegistry& registry);
Status RegisterCoreMetricsExtractor(PluginRegistry& registry);
Status RegisterFileDiscovery(PluginRegistry& registry);
Status RegisterGlobalStrictFairnessPolicy(PluginRegistry& registry);
Status RegisterRoundRobinFairnessPolicy(PluginRegistry& registry);
Status RegisterDeficitRoundRobinFairnessPolicy(PluginRegistry& registry);
Status RegisterVirtualTokenCounterFairnessPolicy(PluginRegistry& registry);
Status RegisterProgramAwareFairness(PluginRegistry& registry);
Status RegisterFcfsOrderingPolicy(PluginRegistry& registry);
Status RegisterEdfOrderingPolicy(PluginRegistry& registry);
Status RegisterSloDeadlineOrderingPolicy(PluginRegistry& registry);
Status RegisterStaticUsageLimitPolicy(PluginRegistry& registry);
Status RegisterSoftReflectiveCeilingPolicy(PluginRegistry& registry);
Status RegisterSheddableEvictionFilter(PluginRegistry& registry);
Status RegisterPriorityThenTimeEvictionOrderPolicy(PluginRegistry& registry);
Status RegisterUtilizationDetector(PluginRegistry& registry);
Status RegisterConcurrencyDetector(PluginRegistry& registry);
Status RegisterPrefixCacheAffinityFilter(PluginRegistry& registry);
Status RegisterUtilizationFilter(PluginRegistry& registry);
Status RegisterHeaderBasedTestingFilter(PluginRegistry& registry);
Status RegisterHeaderLabelAffinityScorer(PluginRegistry& registry);
Status RegisterProbabilisticAdmitter(PluginRegistry& registry);
Status RegisterAgentIdentity(PluginRegistry& registry);
Status RegisterHeaderProfileHandler(PluginRegistry& registry);
Status RegisterDataParallelProfileHandler(PluginRegistry& registry);
Status RegisterPriorityHoldbackPolicy(PluginRegistry& registry);
Status RegisterRequestAttributeReporter(PluginRegistry& registry);
Status RegisterDestinationEndpointServedVerifier(PluginRegistry& registry);
Status RegisterModelsData(PluginRegistry& registry);
Status RegisterDcgmData(PluginRegistry& registry);
Status RegisterNotificationSources(PluginRegistry& registry);
Status RegisterTopologyExtractor(PluginRegistry& registry);
Status RegisterTopologyAffinityFilter(PluginRegistry& registry);
Status RegisterTopologyAffinityScorer(PluginRegistry& registry);
Status RegisterEndpointAttributeFilter(PluginRegistry& registry);
Status RegisterEndpointAttributeScorer(PluginRegistry& registry);
Status RegisterPredictedLatencyProducer(PluginRegistry& registry);
Status RegisterLatencyScorer(PluginRegistry& registry);
Status RegisterSloHeadroomTierFilter(PluginRegistry& registry);
Status RegisterLatencySloAdmitter(PluginRegistry& registry);
Status RegisterAnthropicParser(PluginRegistry& registry);
Status RegisterVllmHttpParser(PluginRegistry& registry);
Status RegisterSglangHttpParser(PluginRegistry& registry);
Status RegisterVllmGrpcParser(PluginRegistry& registry);
Status RegisterVertexAiParser(PluginRegistry& registry);
Status RegisterPrecisePrefixCacheProducer(PluginRegistry& registry);
Status RegisterPrecisePrefixCacheScorer(PluginRegistry& registry);
Status RegisterP2pSourceProducer(PluginRegistry& registry);
Status RegisterMmEmbeddingsCacheProducer(PluginRegistry& registry);
Status RegisterMmEmbeddingsCacheScorer(PluginRegistry& registry);
Status RegisterMultimodalDecider(PluginRegistry& registry);
Status RegisterBurstPrefixCacheProducer(PluginRegistry& registry);
Status RegisterPdProfileHandler(PluginRegistry& registry);
Status RegisterStageHeaderHandlers(PluginRegistry& registry);

}  // namespace llmd::sched
