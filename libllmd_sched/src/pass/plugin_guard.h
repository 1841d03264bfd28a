// Calls into plugins, which may be of others' making: what they throw ends at the call and must not
// take the process down.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "llmd/log.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// INTERNAL, with the plugin's name.
Status PluginFailed(const Plugin& plugin, std::string_view what);

// Runs `call`; what it throws becomes `failed(status)` and false. Costs nothing where nothing is
// thrown.
template <typename Call, typename Failed>
bool Guarded(const Plugin& plugin, const Call& call, const Failed& failed) {
  try {
    call();
    return true;
  } catch (const std::exception& e) {
    failed(PluginFailed(plugin, e.what()));
  } catch (...) {
    failed(PluginFailed(plugin, "exception of unknown type"));
  }
  return false;
}

using OnPluginFailed = std::function<void(const Plugin& plugin, const Status& status)>;

// Logs failures, those of one plugin at most once a second. Thread-safe.
class PluginFailures {
 public:
  PluginFailures(Logger logger, const Clock& clock) : logger_(std::move(logger)), clock_(clock) {}
  void Note(const Plugin& plugin, const Status& status, std::string_view request_id = "");
  // Guarded, with the failure noted.
  template <typename Call>
  bool Run(const Plugin& plugin, std::string_view request_id, const Call& call) {
    return Guarded(plugin, call, [&](const Status& s) { Note(plugin, s, request_id); });
  }

 private:
  struct Told {
    TimePoint at{};
    int64_t since = 0;  // failures that were not logged
  };
  const Logger logger_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, Told> told_;  // by plugin name; guarded by mutex_
};

}  // namespace llmd::sched
