// A metrics page of the size and shape that a vLLM server shows: its own gauges, counters and
// histograms and those of its Python process and web server, in about 665 lines and 57 KB. The
// gauges that a load balancer reads stand apart, so that a server can send them fresh between two
// constant pieces.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace llmd::perf {

struct VllmPage {
  std::string before, after;  // constant text around Gauges()
};

inline constexpr char kVllmLabels[] =
    "{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"";

// Always of the same length for values of two digits.
inline std::string VllmGauges(int running, int waiting) {
  std::string out;
  const auto gauge = [&](const char* name, int value) {
    out += std::string("# HELP vllm:") + name + " Number of requests.\n# TYPE vllm:" + name +
           " gauge\nvllm:" + name + kVllmLabels + "} " + std::to_string(value) + ".0\n";
  };
  gauge("num_requests_running", running);
  gauge("num_requests_waiting", waiting);
  return out;
}

class VllmPageWriter {
 public:
  VllmPage Write() {
    VllmPage page;
    Process();
    page.before = std::move(text_);
    text_.clear();
    Scalars();
    for (const char* name : {"request_prompt_tokens", "request_generation_tokens",
                             "iteration_tokens_total", "request_max_num_generation_tokens",
                             "request_params_max_tokens", "request_prefill_kv_computed_tokens"}) {
      Histogram(std::string("vllm:") + name, kVllmLabels, 22, 3);
    }
    for (const char* name : {"time_to_first_token_seconds", "inter_token_latency_seconds",
                             "request_time_per_output_token_seconds", "e2e_request_latency_seconds",
                             "request_queue_time_seconds", "request_inference_time_seconds",
                             "request_prefill_time_seconds", "request_decode_time_seconds"}) {
      Histogram(std::string("vllm:") + name, kVllmLabels, 21, 0.001);
    }
    Histogram("vllm:request_params_n", kVllmLabels, 7, 1);
    WebServer();
    page.after = std::move(text_);
    return page;
  }

 private:
  void Family(const std::string& name, const char* type, const char* help) {
    text_ += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  }
  void Line(const std::string& name, const std::string& labels, double value) {
    char number[32];
    std::snprintf(number, sizeof number, " %.6g\n", value);
    text_ += name + labels + number;
  }
  void Scalar(const std::string& name, const char* type, double value) {
    Family(name, type, "One of the engine's figures.");
    Line(name, std::string(kVllmLabels) + "}", value);
  }
  void Histogram(const std::string& name, const std::string& labels, int buckets, double first) {
    Family(name, "histogram", "Histogram of the engine.");
    double bound = first, count = 0;
    for (int i = 0; i < buckets; ++i, bound *= 1.7) {
      char le[32];
      std::snprintf(le, sizeof le, ",le=\"%.4g\"}", bound);
      Line(name + "_bucket", labels + le, count += 1234 + i);
    }
    Line(name + "_bucket", labels + ",le=\"+Inf\"}", count);
    Line(name + "_count", labels + "}", count);
    Line(name + "_sum", labels + "}", count * 0.73);
    Family(name + "_created", "gauge", "Histogram of the engine.");
    Line(name + "_created", labels + "}", 1.75e9);
  }
  void Process() {
    for (int generation = 0; generation < 3; ++generation) {
      Family("python_gc_objects_collected_total", "counter", "Objects collected during gc");
      Line("python_gc_objects_collected_total",
           "{generation=\"" + std::to_string(generation) + "\"}", 17'000);
    }
    for (const char* name :
         {"process_virtual_memory_bytes", "process_resident_memory_bytes", "process_open_fds",
          "process_start_time_seconds", "process_cpu_seconds_total", "process_max_fds"}) {
      Family(name, "gauge", "Of this process.");
      Line(name, "", 1.9e10);
    }
  }
  void Scalars() {
    for (const char* name : {"engine_sleep_state", "kv_cache_usage_perc"})
      Scalar(std::string("vllm:") + name, "gauge", 0.25);
    for (const char* name :
         {"prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries",
          "external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits", "num_preemptions",
          "prompt_tokens", "generation_tokens", "corrupted_requests"}) {
      Scalar(std::string("vllm:") + name + "_total", "counter", 123456);
      Scalar(std::string("vllm:") + name + "_created", "gauge", 1.75e9);
    }
    Family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    Line("vllm:cache_config_info",
         "{block_size=\"16\",cache_dtype=\"auto\",calculate_kv_scales=\"False\",cpu_offload_gb="
         "\"0\",enable_prefix_caching=\"True\",engine=\"0\",gpu_memory_utilization=\"0.9\","
         "is_attention_free=\"False\",num_cpu_blocks=\"None\",num_gpu_blocks=\"27742\","
         "prefix_caching_hash_algo=\"sha256\",sliding_window=\"None\",swap_space=\"4\"}",
         1);
    for (const char* reason : {"stop", "length", "abort", "error"}) {
      Line("vllm:request_success_total",
           std::string(kVllmLabels) + ",finished_reason=\"" + reason + "\"}", 42);
    }
  }
  void WebServer() {
    Histogram("http_request_duration_highr_seconds", "{handler=\"all\",method=\"POST\"", 21, 0.01);
    for (const char* handler : {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health",
                                "/metrics", "/tokenize", "/version", "/v1/embeddings"}) {
      const std::string labels = std::string("{handler=\"") + handler + "\",method=\"POST\"";
      Histogram("http_request_duration_seconds", labels, 3, 0.1);
      Line("http_requests_total", labels + ",status=\"2xx\"}", 99);
    }
  }
  std::string text_;
};

}  // namespace llmd::perf
