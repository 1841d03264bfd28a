// What the binding files share.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

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

// A body as JSON text: str and bytes as they are, anything else as json.dumps writes it. TypeError
// of json.dumps. With the GIL held.
void BodyText(py::handle body, std::string& out);
// repr() of a Python value, as text.
std::string Repr(py::handle value);

void BindEndpoint(py::module_& m);
void BindPluginViews(py::module_& m);
void BindDecision(py::module_& m);
void BindScheduler(py::module_& m);
void BindRouting(py::module_& m);
void BindDirector(py::module_& m);
void BindTokenizer(py::module_& m);
void BindEngine(py::module_& m);

// The C++ object in an instance of a bound type; null while it is being made. For the garbage
// collector.
template <typename T>
T* ValueOf(PyObject* instance) {
  auto* const held = reinterpret_cast<py::detail::instance*>(instance);
  if (!held->simple_layout) return nullptr;  // not laid out yet, or of several bound bases
  return static_cast<T*>(held->get_value_and_holder(nullptr, false).value_ptr());
}

}  // namespace llmd::python
