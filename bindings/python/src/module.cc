#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "llmd's compiled core; import llmd instead.";
  m.attr("__version__") = LLMD_VERSION;
  llmd::python::BindEndpoint(m);
  llmd::python::BindPluginViews(m);
  llmd::python::BindDecision(m);
  llmd::python::BindScheduler(m);
  llmd::python::BindRouting(m);
  llmd::python::BindDirector(m);
  llmd::python::BindTokenizer(m);
  llmd::python::BindEngine(m);
}
