// What a router schedules by: one pool, or the several of --pools-file, each with metrics of its
// own.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/picker_flags.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/sched/director.h"
#include "llmd/sched/pools.h"
#include "llmd/tracing.h"

namespace llmd::services {

// Thread-safe after Create.
class Pools {
 public:
  // `metrics` is the process's own registry, and the only pool's when there is one; `tracer` may be
  // null. Both outlive this.
  static StatusOr<std::unique_ptr<Pools>> Create(const PickerFlags& flags,
                                                 std::shared_ptr<sched::Fetch> fetch,
                                                 const Logger& logger, MetricsRegistry& metrics,
                                                 Tracer* tracer);

  sched::Director& director() { return *director_; }
  // The metrics page of the process and of all pools.
  std::string Expose() const;
  // Of the pool of that name; "" = any. False for an unknown name.
  bool ready(std::string_view pool) const;
  // All pools with their names; "" of the only one.
  std::vector<std::pair<std::string, const sched::Director*>> directors() const;
  // The names of several pools; empty with one.
  std::vector<std::string> names() const;

 private:
  explicit Pools(MetricsRegistry& metrics) : metrics_(metrics) {}
  Status Add(const PickerFlags& flags, const sched::PoolRule& rule,
             const std::shared_ptr<sched::Fetch>& fetch, const Logger& logger, Tracer* tracer,
             std::vector<sched::PoolSet::Member>& members);

  MetricsRegistry& metrics_;
  std::vector<std::unique_ptr<MetricsRegistry>> of_pools_;  // outlive the directors
  std::vector<std::string> names_;
  std::unique_ptr<sched::Director> director_;
  sched::PoolSet* set_ = nullptr;  // director_, when there are several
};

}  // namespace llmd::services
