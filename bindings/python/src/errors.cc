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

}  // namespace llmd::python
