// What decision_log decides about.
#pragma once

#include <string>
#include <vector>

#include "llmd/sched/scheduler.h"

namespace llmd::sched {

// The world that is decided about: endpoints that come, go and change, time, and requests. Every
// draw is a statement of its own, since compilers differ in which argument they evaluate first.
class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kEndpoints; ++i) Join();
  }

  void Step() {
    clock_.Advance(Gap());
    Change();
  }
  // How long nothing happens.
  Duration Gap() { return std::chrono::microseconds(100 + Below(30'000)); }
  // What happens then.
  void Change() {
    members_changed_ = false;
    gauged_.clear();
    if (Below(50) == 0 && endpoints_.size() > 2) {
      endpoints_.erase(endpoints_.begin() + static_cast<ptrdiff_t>(Below(endpoints_.size())));
      members_changed_ = true;
    }
    if (endpoints_.size() < kEndpoints && Below(40) == 0) Join();
    for (int i = 0; i < 4; ++i) {
      gauged_.push_back(Below(endpoints_.size()));
      Gauge(endpoints_[gauged_.back()]);
    }
  }

  RequestSpec Request() {
    RequestSpec out;
    out.model = Below(3) == 0 ? "adapter-" + std::to_string(Below(6)) : "base";
    const uint64_t prefix = Below(40);
    for (uint64_t n = 0; n < 10 + prefix * 7; ++n)
      out.prompt += "prefix " + std::to_string(prefix * 1000 + n) + " ";
    out.prompt += "tail " + std::to_string(Below(5) == 0 ? Below(1 << 30) : Below(30));
    if (Below(2) == 0) out.headers.emplace_back("x-session-id", "s" + std::to_string(Below(60)));
    out.priority = static_cast<int>(Below(3)) - 1;
    out.keep_in_flight = Below(4) != 0;
    return out;
  }

  uint64_t Below(uint64_t bound) { return RandomBelow(random_, bound); }
  const std::vector<EndpointState>& endpoints() const { return endpoints_; }
  // Of the last change: members came or went; which ones said something of themselves.
  bool members_changed() const { return members_changed_; }
  const std::vector<size_t>& gauged() const { return gauged_; }
  FakeClock& clock() { return clock_; }

 private:
  static constexpr size_t kEndpoints = 14;

  // A new endpoint, or an earlier one again under its name.
  void Join() {
    const uint64_t number = Below(2) == 0 ? joined_ : Below(joined_ + 1);
    EndpointState e;
    e.info.name = "e" + std::to_string(number);
    for (const EndpointState& other : endpoints_) {
      if (other.info.name == e.info.name) e.info.name = "e" + std::to_string(joined_);
    }
    ++joined_;
    e.info.address = "10.0.0." + std::to_string(1 + joined_ % 250);
    e.info.port = 8000;
    const char* const roles[] = {"prefill", "decode", "decode", "prefill-decode"};
    e.info.labels["llm-d.ai/role"] = roles[Below(4)];
    Gauge(e);
    endpoints_.push_back(std::move(e));
    members_changed_ = true;
  }

  void Gauge(EndpointState& e) {
    EndpointMetrics& m = e.metrics;
    m.ever = true;
    m.updated = clock_.Now();
    m.waiting = static_cast<double>(Below(20));
    m.running = static_cast<double>(Below(64));
    m.kv_usage = RandomUnit(random_);
    m.block_size = 16;
    m.num_blocks = 2000;
    m.max_active_models = 4;
    m.active_models.clear();
    for (uint64_t n = Below(4); n > 0; --n)
      m.active_models.push_back("adapter-" + std::to_string(Below(6)));
  }

  FakeClock clock_;
  uint64_t random_;
  uint64_t joined_ = 0;
  std::vector<EndpointState> endpoints_;
  bool members_changed_ = false;
  std::vector<size_t> gauged_;
};

}  // namespace llmd::sched
