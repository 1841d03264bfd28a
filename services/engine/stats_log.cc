#include "engine/stats_log.h"

#include <cstdio>

namespace llmd::services {
namespace {

std::string OneDigit(double v) {
  char buffer[64];
  const int n = std::snprintf(buffer, sizeof(buffer), "%.1f", v);
  return {buffer, static_cast<size_t>(n)};
}

double Percent(double part, double whole) {
  return whole > 0 ? 100.0 * part / whole : 0.0;
}

}  // namespace

std::string StatsLog::Line(const engine::EngineStats& s, Duration since_last) {
  const double seconds = std::chrono::duration<double>(since_last).count();
  const auto rate = [&](uint64_t now, uint64_t before) {
    return OneDigit(seconds > 0 ? static_cast<double>(now - before) / seconds : 0.0);
  };
  const int usable = s.total_blocks;
  std::string line =
      "Engine 000: Avg prompt throughput: " + rate(s.prompt_tokens, last_.prompt_tokens) +
      " tokens/s, Avg generation throughput: " +
      rate(s.generation_tokens, last_.generation_tokens) +
      " tokens/s, Running: " + std::to_string(s.running) +
      " reqs, Waiting: " + std::to_string(s.waiting + s.waiting_for_remote) +
      " reqs, GPU KV cache usage: " + OneDigit(Percent(usable - s.free_blocks, usable)) +
      "%, Prefix cache hit rate: " +
      OneDigit(Percent(static_cast<double>(s.prefix_hits), static_cast<double>(s.prefix_queries))) +
      "%";
  last_ = s;
  return line;
}

}  // namespace llmd::services
