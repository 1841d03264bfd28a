// The endpoints of the experiment API as plugins see them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/graph.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/scheduler.h"

namespace llmd::sched {

// The lives of endpoints by "ns/name"; none ends before the table.
class LifeTable {
 public:
  const std::shared_ptr<const EndpointLife>& Of(const std::string& full_name) {
    std::shared_ptr<const EndpointLife>& life = lives_[full_name];
    if (!life)
      life = std::make_shared<const EndpointLife>(static_cast<uint32_t>(lives_.size()) - 1);
    return life;
  }

 private:
  std::unordered_map<std::string, std::shared_ptr<const EndpointLife>> lives_;
};

class PreparedSetImpl final : public PreparedSet {
 public:
  static StatusOr<std::unique_ptr<PreparedSetImpl>> Create(std::shared_ptr<const Graph> graph,
                                                           const void* owner,
                                                           std::span<const EndpointState> endpoints,
                                                           LifeTable& lives);

  size_t size() const override { return metrics_.size(); }
  const EndpointInfo& info(size_t i) const override { return snapshot_.info(i); }
  const EndpointMetrics& metrics(size_t i) const override { return *metrics_[i]; }
  int Find(std::string_view full_name) const override;
  void SetGauges(size_t i, double waiting, double running, double kv_usage) override;
  Status SetMetrics(size_t i, const EndpointMetrics& metrics,
                    const std::map<std::string, double>& attributes) override;

  const Snapshot& snapshot() const { return snapshot_; }
  const void* owner() const { return owner_; }
  // The same endpoints in the same order.
  bool Holds(std::span<const EndpointState> endpoints) const;
  Status Update(std::span<const EndpointState> endpoints);

 private:
  PreparedSetImpl(std::shared_ptr<const Graph> graph, const void* owner)
      : graph_(std::move(graph)), owner_(owner) {}
  Status Add(const EndpointState& endpoint, EndpointSet& set, LifeTable& lives);
  void CopyAttributes(size_t i);

  const std::shared_ptr<const Graph> graph_;
  const void* const owner_;
  Snapshot snapshot_;
  std::vector<std::shared_ptr<EndpointMetrics>> metrics_;  // those of the snapshot
  std::unordered_map<std::string_view, int> index_;        // by the set's names
};

}  // namespace llmd::sched
