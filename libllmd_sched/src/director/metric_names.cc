#include "director/metric_names.h"

#include <string>

namespace llmd::sched {
namespace {

struct OldName {
  const char *name, *old_name;
  const char *label = "", *old_label = "";
};

// Without the prefix llm_d_epp_ on the left. Names as they were exposed, from the oldest on.
constexpr OldName kOldNames[] = {
    {"request_total", "inference_model_request_total"},
    {"request_total", "inference_objective_request_total"},
    {"request_error_total", "inference_model_request_error_total"},
    {"request_error_total", "inference_objective_request_error_total"},
    {"request_duration_seconds", "inference_model_request_duration_seconds"},
    {"request_duration_seconds", "inference_objective_request_duration_seconds"},
    {"request_size_bytes", "inference_model_request_sizes"},
    {"request_size_bytes", "inference_objective_request_sizes"},
    {"response_size_bytes", "inference_model_response_sizes"},
    {"response_size_bytes", "inference_objective_response_sizes"},
    {"request_input_tokens", "inference_model_input_tokens"},
    {"request_input_tokens", "inference_objective_input_tokens"},
    {"request_output_tokens", "inference_model_output_tokens"},
    {"request_output_tokens", "inference_objective_output_tokens"},
    {"request_cached_tokens", "inference_objective_prompt_cached_tokens"},
    {"request_running", "inference_model_running_requests"},
    {"request_running", "inference_objective_running_requests"},
    {"request_ntpot_seconds", "inference_model_normalized_time_per_output_token_seconds"},
    {"request_ntpot_seconds", "inference_objective_normalized_time_per_output_token_seconds"},
    {"request_ttft_seconds", "inference_objective_request_ttft_seconds"},
    {"request_streaming_tpot_seconds", "inference_objective_request_streaming_tpot_seconds"},
    {"request_streaming_itl_seconds", "inference_objective_request_streaming_itl_seconds"},
    {"inference_request_metric", "inference_objective_inference_request_metric"},
    {"request_predicted_ttft_seconds", "inference_objective_request_predicted_ttft_seconds"},
    {"request_predicted_tpot_seconds", "inference_objective_request_predicted_tpot_seconds"},
    {"request_ttft_prediction_duration_seconds",
     "inference_objective_request_ttft_prediction_duration_seconds"},
    {"request_tpot_prediction_duration_seconds",
     "inference_objective_request_tpot_prediction_duration_seconds"},
    {"request_slo_violation_total", "inference_objective_request_slo_violation_total"},
    {"average_kv_cache_utilization", "inference_pool_average_kv_cache_utilization"},
    {"average_queue_size", "inference_pool_average_queue_size"},
    {"average_running_requests", "inference_pool_average_running_requests"},
    {"std_dev_kv_cache_utilization", "inference_pool_std_dev_kv_cache_utilization"},
    {"std_dev_queue_size", "inference_pool_std_dev_queue_size"},
    {"std_dev_running_requests", "inference_pool_std_dev_running_requests"},
    {"ready_endpoints", "inference_pool_ready_pods"},
    {"per_endpoint_queue_size", "inference_pool_per_pod_queue_size", "model_server_endpoint",
     "model_server_pod"},
    {"scheduler_e2e_duration_seconds", "inference_extension_scheduler_e2e_duration_seconds"},
    {"scheduler_attempts_total", "inference_extension_scheduler_attempts_total", "endpoint_name",
     "pod_name"},
    {"plugin_duration_seconds", "inference_extension_plugin_duration_seconds"},
    {"info", "inference_extension_info"},
    {"model_rewrite_decisions_total", "inference_extension_model_rewrite_decisions_total"},
    {"prefix_indexer_size", "inference_extension_prefix_indexer_size"},
    {"prefix_indexer_hit_ratio", "inference_extension_prefix_indexer_hit_ratio"},
    {"prefix_indexer_hit_bytes", "inference_extension_prefix_indexer_hit_bytes"},
    {"encoder_cache_queries_total", "llm_d_router_epp_encoder_cache_queries_total"},
    {"encoder_cache_hits_total", "llm_d_router_epp_encoder_cache_hits_total"},
    {"encoder_cache_hit_ratio", "llm_d_router_epp_encoder_cache_hit_ratio"},
    {"flow_control_request_queue_duration_seconds",
     "inference_extension_flow_control_request_queue_duration_seconds"},
    {"flow_control_dispatch_cycle_duration_seconds",
     "inference_extension_flow_control_dispatch_cycle_duration_seconds"},
    {"flow_control_request_enqueue_duration_seconds",
     "inference_extension_flow_control_request_enqueue_duration_seconds"},
    {"flow_control_queue_size", "inference_extension_flow_control_queue_size"},
    {"flow_control_queue_bytes", "inference_extension_flow_control_queue_bytes"},
    {"flow_control_pool_saturation", "inference_extension_flow_control_pool_saturation"},
    {"disagg_decision_total", "llm_d_epp_pd_decision_total"},
    {"disagg_decision_total", "llm_d_inference_scheduler_pd_decision_total"},
    {"disagg_decision_total", "llm_d_inference_scheduler_disagg_decision_total"},
    {"kv_cache_index_admissions_total", "kvcache_index_admissions_total"},
    {"kv_cache_index_evictions_total", "kvcache_index_evictions_total"},
    {"kv_cache_index_lookup_requests_total", "kvcache_index_lookup_requests_total"},
    {"kv_cache_index_lookup_hits_total", "kvcache_index_lookup_hits_total"},
    {"kv_cache_index_max_pod_hit_count_total", "kvcache_index_max_pod_hit_count_total"},
    {"kv_cache_index_lookup_latency_seconds", "kvcache_index_lookup_latency_seconds"},
};

}  // namespace

void AddOldNames(MetricsRegistry& registry) {
  for (const OldName& o : kOldNames)
    registry.AddAlias("llm_d_epp_" + std::string(o.name), o.old_name, o.label, o.old_label);
}

}  // namespace llmd::sched
