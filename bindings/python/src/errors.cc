#include "bindings.h"

namespace llmd::python {
namespace {

const char* ClassName(StatusCode code) {
  switch (code) {
    case StatusCode::kInvalidArgument:
      return "InvalidArgumentError";
    case StatusCode::kOutOfRange:
      return "OutOfRangeError";
    case StatusCode::kNotFound:
      return "NotFoundError";
    case StatusCode::kPermissionDenied:
      return "PermissionDeniedError";
    case StatusCode::kResourceExhausted:
      return "ResourceExhaustedError";
    case StatusCode::kDeadlineExceeded:
      return "DeadlineExceededError";
    case StatusCode::kUnimplemented:
      return "UnimplementedError";
    case StatusCode::kUnavailable:
      return "UnavailableError";
    default:
      return "Error";
  }
}

}  // namespace

void Raise(const Status& status) {
  const py::object type = py::module_::import("llmd.errors").attr(ClassName(status.code()));
  const std::string code(StatusCodeName(status.code()));
  const py::object error = type(status.message(), code);
  PyErr_SetObject(type.ptr(), error.ptr());
  throw py::error_already_set();
}

void BodyText(py::handle body, std::string& out) {
  if (PyUnicode_Check(body.ptr()) != 0) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(body.ptr(), &size);
    if (text == nullptr) throw py::error_already_set();
    out.assign(text, static_cast<size_t>(size));
  } else if (PyBytes_Check(body.ptr()) != 0) {
    out.assign(PyBytes_AS_STRING(body.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(body.ptr())));
  } else {
    // Never freed: objects may not outlive the interpreter.
    static const py::object& dumps = *new py::object(py::module_::import("json").attr("dumps"));
    out = dumps(body).cast<std::string>();
  }
}

std::string Repr(py::handle value) {
  return py::repr(value).cast<std::string>();
}

}  // namespace llmd::python
