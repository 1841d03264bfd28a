// Metrics pages as the engines write them: the gauges a picker reads among histograms and process
// metrics, at least 650 lines long.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace llmd::test {

struct EngineGauges {
  double waiting = 0, running = 0, kv_usage = 0;
  int block_size = 16, num_blocks = 0;
  std::vector<std::string> lora_running, lora_waiting;
  int max_lora = 0;
  bool old_names = false;  // vLLM before kv_cache_usage_perc
};

class PageWriter {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;
  void Family(const std::string& name, const std::string& type) {
    text_ += "# HELP " + name + " " + name + " of the engine.\n# TYPE " + name + " " + type + "\n";
    lines_ += 2;
  }
  void Sample(const std::string& name, const Labels& labels, double value) {
    text_ += name;
    for (size_t i = 0; i < labels.size(); ++i)
      text_ += (i ? "," : "{") + labels[i].first + "=\"" + labels[i].second + "\"";
    text_ += (labels.empty() ? " " : "} ") + std::to_string(value) + "\n";
    ++lines_;
  }
  void Gauge(const std::string& name, const Labels& labels, double value) {
    Family(name, "gauge");
    Sample(name, labels, value);
  }
  void Histogram(const std::string& name, const Labels& labels, int buckets) {
    Family(name, "histogram");
    for (int b = 0; b <= buckets; ++b) {
      Labels with = labels;
      with.emplace_back("le", b == buckets ? "+Inf" : std::to_string(0.001 * (1 << (b % 20))));
      Sample(name + "_bucket", with, b * 3);
    }
    Sample(name + "_sum", labels, 17.25);
    Sample(name + "_count", labels, buckets * 3);
  }
  int lines() const { return lines_; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  int lines_ = 0;
};

inline std::string Joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += (out.empty() ? "" : ",") + n;
  return out;
}

inline void WriteVllm(PageWriter& w, const EngineGauges& g, const PageWriter::Labels& labels) {
  w.Gauge("vllm:num_requests_running", labels, g.running);
  w.Gauge("vllm:num_requests_waiting", labels, g.waiting);
  w.Gauge("vllm:num_requests_swapped", labels, 99);
  w.Gauge(g.old_names ? "vllm:gpu_cache_usage_perc" : "vllm:kv_cache_usage_perc", labels,
          g.kv_usage);
  w.Gauge("vllm:cpu_cache_usage_perc", labels, 0.99);
  w.Gauge("vllm:cache_config_info",
          {{"block_size", std::to_string(g.block_size)},
           {"cache_dtype", "auto"},
           {"num_cpu_blocks", "77"},
           {"num_gpu_blocks", std::to_string(g.num_blocks)}},
          1);
  if (g.max_lora == 0) return;
  w.Family("vllm:lora_requests_info", "gauge");
  w.Sample("vllm:lora_requests_info",
           {{"max_lora", "9"}, {"running_lora_adapters", "gone"}, {"waiting_lora_adapters", ""}},
           1.7e9);
  w.Sample("vllm:lora_requests_info",
           {{"max_lora", std::to_string(g.max_lora)},
            {"running_lora_adapters", Joined(g.lora_running)},
            {"waiting_lora_adapters", Joined(g.lora_waiting)}},
           1.7e9 + 60);
}

inline void WriteSglang(PageWriter& w, const EngineGauges& g, const PageWriter::Labels& labels) {
  w.Gauge("sglang:num_running_reqs", labels, g.running);
  w.Gauge("sglang:num_used_tokens", labels, 12345);
  w.Gauge("sglang:token_usage", labels, g.kv_usage);
  w.Gauge("sglang:num_queue_reqs", labels, g.waiting);
  w.Gauge("sglang:num_grammar_queue_reqs", labels, 99);
  w.Gauge(
      "sglang:cache_config_info",
      {{"page_size", std::to_string(g.block_size)}, {"num_pages", std::to_string(g.num_blocks)}},
      1);
}

inline void WriteTrtllmServe(PageWriter& w, const EngineGauges& g,
                             const PageWriter::Labels& labels) {
  w.Gauge("trtllm_num_requests_running", labels, g.running);
  w.Gauge("trtllm_num_requests_waiting", labels, g.waiting);
  w.Gauge("trtllm_kv_cache_utilization", labels, g.kv_usage);
  w.Gauge("trtllm_kv_cache_tokens_per_block", labels, g.block_size);
  w.Gauge("trtllm_kv_cache_max_blocks", labels, g.num_blocks);
  w.Gauge("trtllm_kv_cache_hit_rate", labels, 0.99);
}

inline void WriteTritonTrtllm(PageWriter& w, const EngineGauges& g) {
  const auto series = [&](const std::string& name, const std::string& label,
                          const std::vector<std::pair<std::string, double>>& values) {
    w.Family(name, "gauge");
    for (const auto& [value, number] : values)
      w.Sample(name, {{label, value}, {"model", "tensorrt_llm"}, {"version", "1"}}, number);
  };
  series("nv_trt_llm_request_metrics", "request_type",
         {{"context", 99},
          {"scheduled", g.running},
          {"max", 64},
          {"active", 98},
          {"waiting", g.waiting}});
  series("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type",
         {{"max", g.num_blocks},
          {"free", 5},
          {"used", 7},
          {"tokens_per", g.block_size},
          {"fraction", g.kv_usage}});
}

inline void WriteTriton(PageWriter& w, const EngineGauges& g) {
  const PageWriter::Labels labels = {{"model", "llama"}, {"version", "1"}};
  w.Gauge("nv_inference_pending_request_count", labels, g.waiting);
  w.Gauge("nv_inference_request_success", labels, 99);
  w.Gauge("nv_inference_exec_count", labels, g.running);
}

// `engine` as in the label llm-d.ai/engine-type.
inline std::string EnginePageOf(const std::string& engine, const EngineGauges& g) {
  const PageWriter::Labels labels = {{"engine", "0"}, {"model_name", "meta-llama/Llama-3.1-8B"}};
  PageWriter w;
  for (const char* name : {"python_gc_objects_collected_total", "process_virtual_memory_bytes",
                           "process_resident_memory_bytes", "process_open_fds"})
    w.Gauge(name, {}, 1);
  w.Histogram("request_prompt_tokens", labels, 20);
  if (engine == "vllm") WriteVllm(w, g, labels);
  if (engine == "sglang") WriteSglang(w, g, labels);
  if (engine == "trtllm-serve") WriteTrtllmServe(w, g, labels);
  if (engine == "triton-tensorrt-llm") WriteTritonTrtllm(w, g);
  if (engine == "triton") WriteTriton(w, g);
  // Names that begin as the wanted ones do.
  for (int i = 0; w.lines() < 650; ++i)
    w.Histogram("vllm:num_requests_waiting_seconds_" + std::to_string(i), labels, 25);
  return w.text();
}

}  // namespace llmd::test
