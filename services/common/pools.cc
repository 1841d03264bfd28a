#include "common/pools.h"

#include <filesystem>
#include <utility>

#include "llmd/clock.h"

namespace llmd::services {

StatusOr<std::unique_ptr<Pools>> Pools::Create(const PickerFlags& flags,
                                               std::shared_ptr<sched::Fetch> fetch,
                                               const Logger& logger, MetricsRegistry& metrics,
                                               Tracer* tracer) {
  auto out = std::unique_ptr<Pools>(new Pools(metrics));
  metrics.ExposeAliases(flags.deprecated_metric_names);
  if (flags.pools_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(sched::DirectorOptions options, ToDirectorOptions(flags));
    options.tracer = tracer;
    LLMD_ASSIGN_OR_RETURN(out->director_,
                          sched::Director::Create(std::move(options), std::move(fetch), logger,
                                                  metrics, SystemClock()));
    return out;
  }
  LLMD_ASSIGN_OR_RETURN(const std::string yaml, ReadConfigFile("--pools-file", flags.pools_file));
  auto config =
      sched::ParsePools(yaml, std::filesystem::path(flags.pools_file).parent_path().string());
  if (!config.ok()) return config.status().WithContext(flags.pools_file);
  std::vector<sched::PoolSet::Member> members;
  for (const sched::PoolRule& rule : config->pools)
    LLMD_RETURN_IF_ERROR(out->Add(flags, rule, fetch, logger, tracer, members));
  auto set = sched::PoolSet::Create(std::move(members), config->default_pool, metrics,
                                    static_cast<uint64_t>(flags.seed), logger);
  out->set_ = set.get();
  out->director_ = std::move(set);
  return out;
}

Status Pools::Add(const PickerFlags& flags, const sched::PoolRule& rule,
                  const std::shared_ptr<sched::Fetch>& fetch, const Logger& logger, Tracer* tracer,
                  std::vector<sched::PoolSet::Member>& members) {
  PickerFlags own = flags;
  own.pools_file.clear();
  own.config_file = rule.config_path;
  own.pool_name = rule.name;
  LLMD_ASSIGN_OR_RETURN(sched::DirectorOptions options, ToDirectorOptions(own));
  options.tracer = tracer;
  options.label_pool = true;
  of_pools_.push_back(
      std::make_unique<MetricsRegistry>(SystemClock(), Labels{{"pool", rule.name}}));
  of_pools_.back()->ExposeAliases(flags.deprecated_metric_names);
  auto director = sched::Director::Create(std::move(options), fetch, logger.With("pool", rule.name),
                                          *of_pools_.back(), SystemClock());
  if (!director.ok()) return director.status().WithContext("pool '" + rule.name + "'");
  members.push_back({rule, std::move(*director)});
  names_.push_back(rule.name);
  return OkStatus();
}

std::string Pools::Expose() const {
  std::vector<const MetricsRegistry*> all = {&metrics_};
  for (const auto& registry : of_pools_) all.push_back(registry.get());
  return MetricsRegistry::ExposeTogether(all);
}

bool Pools::ready(std::string_view pool) const {
  if (pool.empty()) return director_->ready();
  const sched::Director* one = set_ ? set_->Find(pool) : nullptr;
  return one != nullptr && one->ready();
}

std::vector<std::pair<std::string, const sched::Director*>> Pools::directors() const {
  if (set_ == nullptr) return {{"", director_.get()}};
  std::vector<std::pair<std::string, const sched::Director*>> out;
  for (const std::string& name : names_) out.emplace_back(name, std::as_const(*set_).Find(name));
  return out;
}

std::vector<std::string> Pools::names() const {
  return names_;
}

}  // namespace llmd::services
