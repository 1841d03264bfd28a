// A metrics page as large as those of real engines, for tests and benchmarks of the scraper.
#pragma once

#include <string>
#include <vector>

namespace llmd::test {

// What a scheduler reads off each page.
inline std::vector<std::string> ScrapedNames() {
  return {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
          "vllm:cache_config_info",    "vllm:lora_requests_info",   "vllm:prefix_cache_hits_total"};
}

inline double ScrapedValue(size_t name) {
  return static_cast<double>(name) * 1.5;
}

// The chosen series once each, scattered over histograms until the page has about `bytes` bytes.
inline std::string EnginePage(size_t bytes) {
  const std::string labels = "{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"";
  const std::vector<std::string> names = ScrapedNames();
  std::string page;
  size_t next = 0;
  for (int family = 0; page.size() < bytes || next < names.size(); ++family) {
    if (next < names.size() && page.size() >= bytes * next / names.size()) {
      page += "# HELP " + names[next] + " A series.\n# TYPE " + names[next] + " gauge\n";
      page += names[next] + labels + "} " + std::to_string(ScrapedValue(next)) + "\n";
      ++next;
    }
    const std::string name = "vllm:request_phase_" + std::to_string(family) + "_time_seconds";
    page += "# HELP " + name + " Histogram of time.\n# TYPE " + name + " histogram\n";
    for (int bucket = 0; bucket < 20; ++bucket) {
      page += name + "_bucket" + labels + ",le=\"" + std::to_string(bucket * 0.25) + "\"} " +
              std::to_string(bucket) + ".0\n";
    }
  }
  return page;
}

}  // namespace llmd::test
