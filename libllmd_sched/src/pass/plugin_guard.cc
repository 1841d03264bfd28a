#include "pass/plugin_guard.h"

namespace llmd::sched {
namespace {

constexpr auto kQuiet = std::chrono::seconds(1);

}  // namespace

Status PluginFailed(const Plugin& plugin, std::string_view what) {
  return Internal("plugin '" + plugin.name() + "' failed: " + std::string(what));
}

void PluginFailures::Note(const Plugin& plugin, const Status& status, std::string_view request_id) {
  const TimePoint now = clock_.Now();
  int64_t missed = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto [it, fresh] = told_.try_emplace(plugin.name());
    Told& told = it->second;
    if (!fresh && now - told.at < kQuiet) {
      ++told.since;
      return;
    }
    told.at = now;
    missed = std::exchange(told.since, 0);
  }
  logger_.Error("Plugin failed", {{"plugin", plugin.name()},
                                  {"x-request-id", std::string(request_id)},
                                  {"error", status.message()},
                                  {"failuresNotLogged", missed}});
}

}  // namespace llmd::sched
