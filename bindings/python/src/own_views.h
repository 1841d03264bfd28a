// Requests and candidates that a test of a plugin makes by itself.
#pragma once

#include <pybind11/pybind11.h>

#include <map>
#include <string>

#include "plugin_views.h"

namespace llmd::python {

// Arguments as the docstrings of llmd.Request and llmd.Candidates say.
RequestView MakeRequest(const py::object& body, const std::string& path,
                        const std::map<std::string, std::string>& headers, std::string request_id,
                        int priority, std::string objective, std::string fairness_id,
                        uint64_t seed);
CandidatesView MakeCandidates(const py::object& endpoints, const py::object& stale,
                              const py::dict& data);
// The path of the API that a body is for. InvalidArgumentError when its shape does not say.
std::string PathOfBody(const std::string& body);
// Header names in lower case.
sched::HeaderList LowerHeaders(const std::map<std::string, std::string>& headers);

}  // namespace llmd::python
