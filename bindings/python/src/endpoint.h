// llmd.Endpoint and llmd.PreparedSet.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bindings.h"
#include "llmd/sched/scheduler.h"

namespace llmd::python {

// The identity never changes; `version` is another one after every change of the rest, and of no
// two objects the same. Touched with the GIL held only.
struct PyEndpoint {
  std::shared_ptr<const sched::EndpointInfo> info;
  sched::EndpointMetrics metrics;
  std::map<std::string, double> attributes;
  uint64_t version = 0;
  void Touch();
  sched::EndpointState State() const { return {*info, metrics, attributes}; }
};

// The endpoints of any sequence of llmd.Endpoint. TypeError says which item is none.
std::vector<PyEndpoint*> EndpointsOf(py::handle endpoints);
std::vector<sched::EndpointState> StatesOf(py::handle endpoints);

// A set made by Scheduler.prepare. `busy` counts the calls that decide with it at this moment:
// changed with the GIL held.
struct PySet {
  py::object owner;  // the scheduler, which must outlive the set
  std::unique_ptr<sched::PreparedSet> set;
  int busy = 0;
};

// The endpoints of the last call with a list and their set: the next one with the same list only
// takes over what changed.
class ListCache {
 public:
  // Raises as Scheduler::Prepare does. With the GIL held.
  static std::unique_ptr<ListCache> Make(sched::Scheduler& scheduler, py::handle endpoints);
  // True when `endpoints` are the same; its set then knows their present metrics.
  bool Update(py::handle endpoints);
  const sched::PreparedSet& set() const { return *set_; }
  const std::vector<py::object>& objects() const { return objects_; }

 private:
  std::vector<py::object> objects_;
  std::vector<const PyEndpoint*> endpoints_;
  std::vector<uint64_t> versions_;
  std::unique_ptr<sched::PreparedSet> set_;
};

}  // namespace llmd::python
