// Python callables as filters, scorers and pickers of a scheduler.
#pragma once

#include <pybind11/pybind11.h>

#include <set>
#include <string>

#include "llmd/sched/plugin.h"
#include "llmd/status.h"

namespace llmd::python {

namespace py = pybind11;

// Adds every callable of the mappings (type name → callable or class) to `registry`. Types that a
// configuration has built are noted in `*used`, which outlives the registry. With the GIL held.
Status AddPythonPlugins(sched::PluginRegistry& registry, const py::dict& scorers,
                        const py::dict& filters, const py::dict& pickers,
                        std::set<std::string>* used);

// One call of a scheduler on this thread: keeps the Python exception of a plugin until it can be
// raised, and refuses calls of the same scheduler from inside its own plugins, which would wait for
// themselves. Made and destroyed with the GIL held.
class PluginCall {
 public:
  // Throws llmd.Error (FAILED_PRECONDITION) for such a call.
  explicit PluginCall(const void* scheduler);
  ~PluginCall();
  PluginCall(const PluginCall&) = delete;
  PluginCall& operator=(const PluginCall&) = delete;

  // The innermost call of this thread, or null.
  static PluginCall* Current();
  // Raises `status` as llmd.Error, caused by the plugin's exception; an exception that is no
  // Exception (KeyboardInterrupt) is raised itself.
  [[noreturn]] void Rethrow(const Status& status);

  py::object exception;  // of the first plugin that raised; null = none

 private:
  const void* const scheduler_;
  PluginCall* const outer_;
};

}  // namespace llmd::python
