// Requests and tokens in flight by endpoint, fairness id and priority: what the metrics page shows
// of them (docs/metrics.md).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "director/name_cap.h"
#include "llmd/sched/endpoint.h"

namespace llmd::sched {

// Thread-safe. A flow and an endpoint seen before cost no allocation.
class InflightFlows {
 public:
  struct Flow {
    std::string fairness_id, priority;
  };

  // A number for the flow. The first 1,000 fairness ids have numbers of their own, later ones share
  // "other"; beyond kMaxFlows of them all share one.
  uint64_t Of(std::string_view fairness_id, int priority);
  // A request of the flow leaves for the endpoint.
  void Start(uint64_t flow, EndpointId life, const std::shared_ptr<const EndpointInfo>& endpoint,
             double tokens);
  // That many of them are over.
  void End(uint64_t flow, EndpointId life, double requests, double tokens);
  // The endpoint left: what it still answers is no longer shown.
  void Forget(const EndpointInfo& endpoint);
  void ForEach(const std::function<void(const EndpointInfo&, const Flow&, double requests,
                                        double tokens)>& visit) const;

 private:
  static constexpr size_t kMaxFlows = 4096, kFirstSweep = 4096;
  struct Count {
    std::shared_ptr<const EndpointInfo> endpoint;  // null = it left
    double requests = 0, tokens = 0;
  };
  struct Key {
    uint64_t flow = 0;
    EndpointId life{};
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const {
      return std::hash<uint64_t>()(static_cast<uint64_t>(key.life) * 4099 + key.flow);
    }
  };
  void Sweep();

  mutable std::mutex mutex_;
  NameCap fairness_ids_;
  std::deque<Flow> flows_ = {{"other", "other"}};      // guarded by mutex_
  std::unordered_map<std::string, uint64_t> numbers_;  // of flows, by both texts; guarded by mutex_
  std::unordered_map<Key, Count, Hash> counts_;        // guarded by mutex_
  size_t next_sweep_ = kFirstSweep;                    // guarded by mutex_
};

}  // namespace llmd::sched
