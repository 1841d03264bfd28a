// What the binding files share.
#pragma once

#include <pybind11/pybind11.h>

#include "llmd/status.h"

namespace llmd::python {

namespace py = pybind11;

// Raises the llmd.Error subclass of the status. With the GIL held.
[[noreturn]] void Raise(const Status& status);
inline void Check(const Status& status) {
  if (!status.ok()) Raise(status);
}
template <typename T>
T Value(StatusOr<T> result) {
  if (!result.ok()) Raise(result.status());
  return std::move(*result);
}

void BindPluginViews(py::module_& m);
void BindScheduler(py::module_& m);
void BindTokenizer(py::module_& m);
void BindEngine(py::module_& m);

}  // namespace llmd::python
