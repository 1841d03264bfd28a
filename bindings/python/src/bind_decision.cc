#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "decision.h"
#include "llmd/json.h"

namespace llmd::python {
namespace {

using sched::Decision;
using sched::ProfileTrace;

py::array_t<double> Array(const std::vector<double>& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

std::vector<std::string> Names(const PyDecision& d, const std::vector<int>& indexes) {
  std::vector<std::string> out;
  out.reserve(indexes.size());
  for (int i : indexes) out.push_back(d.Trace().endpoints[static_cast<size_t>(i)]);
  return out;
}

py::dict ProfileDict(const PyDecision& d, const ProfileTrace& profile) {
  py::dict scores, weights, filters, out;
  for (const auto& score : profile.scores) {
    scores[py::str(score.scorer)] = Array(score.raw);
    weights[py::str(score.scorer)] = score.weight;
  }
  for (const auto& filter : profile.filters)
    filters[py::str(filter.filter)] = Names(d, filter.kept);
  out["candidates"] = Names(d, profile.candidates);
  out["filters"] = filters;
  out["scores"] = scores;
  out["weights"] = weights;
  out["totals"] = Array(profile.totals);
  out["picker"] = profile.picker;
  out["picked"] = Names(d, profile.picked);
  out["tied"] = profile.tied;
  return out;
}

py::dict Profiles(const PyDecision& d) {
  py::dict out;
  for (const ProfileTrace& profile : d.Trace().profiles)
    out[py::str(profile.profile)] = ProfileDict(d, profile);
  return out;
}

py::object OrNone(const std::string& text) {
  return text.empty() ? py::object(py::none()) : py::str(text);
}

py::object Endpoint(const PyDecision& d) {
  return OrNone(d.decision.picked.empty() ? "" : d.decision.picked[0].endpoint);
}

py::list Picked(const PyDecision& d) {
  py::list out;
  for (const auto& p : d.decision.picked)
    out.append(py::make_tuple(p.endpoint, p.address, p.total));
  return out;
}

std::string DecisionRepr(const PyDecision& d) {
  const Decision& decision = d.decision;
  const std::string id = "<llmd.Decision " + std::to_string(decision.id) + ": ";
  if (!decision.ok)
    return id + "refused, " + std::to_string(decision.denied_status) + " " +
           decision.denied_reason + ">";
  std::string out =
      id + decision.picked[0].endpoint + ", total " + Repr(py::float_(decision.picked[0].total));
  if (!decision.prefill.empty()) out += ", prefill " + decision.prefill;
  return out + ">";
}

py::tuple State(const PyDecision& d) {
  const Decision& x = d.decision;
  py::list picked;
  for (const auto& p : x.picked)
    picked.append(py::make_tuple(p.endpoint, p.address, p.total, p.index));
  return py::make_tuple(x.ok, x.denied_status, x.denied_reason, picked, x.prefill, x.prefill_index,
                        x.decision_type, x.set_headers, x.id, sched::ToJson(d.Trace()).Dump());
}

PyDecision Restore(const py::tuple& t) {
  PyDecision out;
  Decision& x = out.decision;
  x.ok = t[0].cast<bool>();
  x.denied_status = t[1].cast<int>();
  x.denied_reason = t[2].cast<std::string>();
  for (const py::handle item : t[3].cast<py::list>()) {
    const auto p = item.cast<py::tuple>();
    x.picked.push_back({p[0].cast<std::string>(), p[1].cast<std::string>(), p[2].cast<double>(),
                        p[3].cast<uint32_t>()});
  }
  x.prefill = t[4].cast<std::string>();
  x.prefill_index = t[5].cast<int>();
  x.decision_type = t[6].cast<std::string>();
  x.set_headers = t[7].cast<sched::HeaderList>();
  x.id = t[8].cast<uint64_t>();
  out.trace = Value(sched::DecisionFromJson(Value(json::Parse(t[9].cast<std::string>()))));
  return out;
}

}  // namespace

void BindDecision(py::module_& m) {
  py::class_<PyDecision>(m, "Decision", "Where a request goes, or why it is refused, and how come.")
      .def_property_readonly("ok", [](const PyDecision& d) { return d.decision.ok; })
      .def_property_readonly("endpoint", &Endpoint,
                             "namespace/name of the chosen endpoint; None when refused.")
      .def_property_readonly(
          "index",
          [](const PyDecision& d) -> py::object {
            if (d.decision.picked.empty()) return py::none();
            return py::int_(d.decision.picked[0].index);
          },
          "Its position among the endpoints given; None when refused.")
      .def_property_readonly("picked", &Picked,
                             "(namespace/name, address:port, weighted total), best first.")
      .def_property_readonly(
          "prefill", [](const PyDecision& d) { return OrNone(d.decision.prefill); },
          "The prefill endpoint; None when the request is not disaggregated.")
      .def_property_readonly(
          "decision_type", [](const PyDecision& d) { return d.decision.decision_type; },
          "decode-only, prefill-decode, …")
      .def_property_readonly(
          "denied_status", [](const PyDecision& d) { return d.decision.denied_status; },
          "HTTP status of a refusal, else 0.")
      .def_property_readonly("denied_reason",
                             [](const PyDecision& d) { return d.decision.denied_reason; })
      .def_property_readonly(
          "set_headers",
          [](const PyDecision& d) {
            return std::map<std::string, std::string>(d.decision.set_headers.begin(),
                                                      d.decision.set_headers.end());
          },
          "Headers to set on the request.")
      .def_property_readonly("profiles", &Profiles,
                             "Per profile: candidates, filters, scores (scorer -> float64 array "
                             "[candidates], NaN = not scored), weights, "
                             "totals (float64 array [candidates]), picker, picked, tied.")
      .def_property_readonly(
          "id", [](const PyDecision& d) { return d.decision.id; },
          "For Scheduler.first_token and finish.")
      .def(
          "to_json", [](const PyDecision& d) { return sched::ToJson(d.Trace()).Dump(); },
          "The decision trace as JSON text.")
      .def("__str__", [](const PyDecision& d) { return sched::ToText(d.Trace()); })
      .def("__repr__", &DecisionRepr)
      .def("__copy__", [](const PyDecision& d) { return d; })
      .def("__deepcopy__", [](const PyDecision& d, const py::dict&) { return d; })
      .def(py::pickle(&State, &Restore));
}

}  // namespace llmd::python
