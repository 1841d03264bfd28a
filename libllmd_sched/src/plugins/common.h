// What plugin files share: closing a factory, the base of plugins without parameters,
// per-membership caches.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// The plugin, or the errors of its parameters.
inline StatusOr<std::unique_ptr<Plugin>> Done(Params& params, std::unique_ptr<Plugin> plugin) {
  LLMD_RETURN_IF_ERROR(params.Finish());
  return plugin;
}

// A factory for a plugin whose constructor takes nothing.
template <typename T>
PluginFactory Simple() {
  return [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
    Params params(args.parameters);
    return Done(params, std::make_unique<T>());
  };
}

// The plugin's own column of the ledger, or another one under that suffix.
inline StatusOr<std::shared_ptr<const LedgerColumn>> TakeColumn(const PluginArgs& args,
                                                                std::string_view suffix = "") {
  auto column =
      args.env.ledger ? args.env.ledger->Column(args.name + std::string(suffix)) : nullptr;
  if (!column) {
    return ResourceExhausted("plugin '" + args.name +
                             "': no column of the in-flight ledger is free, "
                             "there are " +
                             std::to_string(kLedgerColumns));
  }
  return column;
}

// A value per endpoint that depends on its identity only (labels), computed once per membership.
// Thread-safe.
template <typename T>
class PerSet {
 public:
  std::shared_ptr<const std::vector<T>> Get(const std::shared_ptr<const EndpointSet>& set,
                                            const std::function<T(const EndpointInfo&)>& make) {
    std::lock_guard lock(mutex_);
    if (set_.lock() != set) {
      auto values = std::make_shared<std::vector<T>>();
      for (const auto& info : set->infos) values->push_back(make(*info));
      set_ = set;
      values_ = std::move(values);
    }
    return values_;
  }

 private:
  std::mutex mutex_;
  std::weak_ptr<const EndpointSet> set_;          // keeps no life; guarded by mutex_
  std::shared_ptr<const std::vector<T>> values_;  // guarded by mutex_
};

}  // namespace llmd::sched
