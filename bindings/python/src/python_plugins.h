// Python callables as filters, scorers and pickers of a scheduler.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "llmd/sched/plugin.h"
#include "llmd/status.h"

namespace llmd::python {

namespace py = pybind11;

// What a plugin calls. Held by the plugin and by its scheduler, which shows it to the garbage
// collector: the callable may refer to the scheduler. With the GIL held.
struct PythonCall {
  py::object call;
  py::dict kwargs;
};

// What a configuration has built of Python's plugins.
struct BuiltPlugins {
  std::set<std::string> types;
  std::vector<std::shared_ptr<PythonCall>> calls;
  // For tp_traverse and tp_clear of whoever holds them.
  int Visit(visitproc visit, void* arg) const;
  void Clear();
};

// Adds every callable of the mappings (type name → callable or class) to `registry`. What a
// configuration builds of them is noted in `*built`, which outlives the registry. With the GIL
// held, as the registry must be when it goes; plugins may be made without.
Status AddPythonPlugins(sched::PluginRegistry& registry, const py::dict& scorers,
                        const py::dict& filters, const py::dict& pickers, BuiltPlugins* built);

// One call of a scheduler (or a director) on this thread: keeps the Python exception of a plugin
// until it can be raised, and refuses calls of the same scheduler from inside its own plugins,
// which would wait for themselves. Made and destroyed with the GIL held.
class PluginCall {
 public:
  // Throws llmd.Error (FAILED_PRECONDITION) for such a call; `what` is it for the message.
  PluginCall(const void* scheduler, const char* what);
  ~PluginCall();
  PluginCall(const PluginCall&) = delete;
  PluginCall& operator=(const PluginCall&) = delete;

  // The innermost call of this thread, or null.
  static PluginCall* Current();
  // Raises `status` as llmd.Error, caused by the plugin's exception; an exception that is no
  // Exception (KeyboardInterrupt) is raised itself.
  [[noreturn]] void Rethrow(const Status& status) { Rethrow(status, exception); }
  [[noreturn]] static void Rethrow(const Status& status, const py::object& exception);
  // Notes the first plugin that failed; `raised` is null when it returned something wrong.
  void Note(const std::string& plugin, const std::string& text, const py::object& raised);

  std::string failure;   // of that plugin, "" = none failed
  py::object exception;  // that it raised; null = none

 private:
  const void* const scheduler_;
  PluginCall* const outer_;
};

}  // namespace llmd::python
