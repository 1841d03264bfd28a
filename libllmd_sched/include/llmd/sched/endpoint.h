// A model server as the scheduler sees it: who it is, and what it last said of itself.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "llmd/clock.h"

namespace llmd::sched {

// Identity; never changes while the endpoint lives.
struct EndpointInfo {
  std::string name;                           // "decode-0"
  std::string ns = "default";
  std::string address;                        // IP
  uint16_t port = 0;
  std::map<std::string, std::string> labels;  // llm-d.ai/role …
  int rank = 0;
  std::string HostPort() const { return address + ":" + std::to_string(port); }
  std::string FullName() const { return ns + "/" + name; }
};

// The gauges of one scrape (endpoint-picker.md §6.1). Plain values; copied into snapshots.
struct EndpointMetrics {
  double waiting = 0, running = 0;
  double kv_usage = 0;                        // 0..1
  int block_size = 0, num_blocks = 0;         // 0 = not reported
  std::vector<std::string> active_models, waiting_models;
  int max_active_models = 0;
  TimePoint updated{};                        // of the last good scrape; epoch = never
  bool ever = false;
};

}  // namespace llmd::sched
