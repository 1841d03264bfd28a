#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "llmd's compiled core; import llmd instead.";
  m.attr("__version__") = LLMD_VERSION;
  // What is called later is loaded now: a fork while another thread loads a module leaves that
  // module's lock taken in the child for ever.
  for (const char* name :
       {"inspect", "json", "logging", "pathlib", "llmd._logging", "llmd.errors"}) {
    pybind11::module_::import(name);
  }
  llmd::python::BindEndpoint(m);
  llmd::python::BindPluginViews(m);
  llmd::python::BindDecision(m);
  llmd::python::BindScheduler(m);
  llmd::python::BindRouting(m);
  llmd::python::BindDirector(m);
  llmd::python::BindTokenizer(m);
  llmd::python::BindEngine(m);
}
