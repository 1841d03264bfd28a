// What a Python plugin is called with: views of a request and of the candidates that end with the
// call. Arrays they give are copies and stay; one call gives the same array each time. Those that a
// test makes by itself own what they show and do not end.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <map>
#include <memory>
#include <span>
#include <string>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/request_context.h"

namespace llmd::python {

namespace py = pybind11;

// The call both views belong to. Touched with the GIL held only.
struct ViewScope {
  sched::RequestContext* request = nullptr;  // null once the call is over
  const sched::Snapshot* snapshot = nullptr;
  std::span<const uint32_t> candidates;
  const std::map<std::string, sched::DataKey>* data = nullptr;
  std::shared_ptr<void> owned = nullptr;  // what a view of its own shows
  py::dict columns = {};                  // made so far, by name
  // Throws llmd.Error (FAILED_PRECONDITION) after the call.
  void RequireOpen() const;
};

struct RequestView {
  std::shared_ptr<ViewScope> scope;
};
struct CandidatesView {
  std::shared_ptr<ViewScope> scope;
};

}  // namespace llmd::python
