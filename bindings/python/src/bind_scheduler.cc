#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "llmd/sched/scheduler.h"
#include "python_plugins.h"

namespace llmd::python {
namespace {

using sched::Decision;
using sched::EndpointState;
using sched::ProfileTrace;
using sched::RequestSpec;
using sched::Scheduler;

EndpointState MakeEndpoint(std::string name, std::string address, int port, std::string ns,
                           std::map<std::string, std::string> labels, double waiting,
                           double running, double kv_usage, int block_size, int num_blocks,
                           std::map<std::string, double> attributes) {
  if (port < 1 || port > 65535)
    Raise(InvalidArgument("port " + std::to_string(port) + ": expected 1 to 65535"));
  EndpointState e;
  e.info.name = std::move(name);
  e.info.ns = std::move(ns);
  e.info.address = std::move(address);
  e.info.port = static_cast<uint16_t>(port);
  e.info.labels = std::move(labels);
  e.metrics.waiting = waiting;
  e.metrics.running = running;
  e.metrics.kv_usage = kv_usage;
  e.metrics.block_size = block_size;
  e.metrics.num_blocks = num_blocks;
  e.metrics.ever = true;
  e.attributes = std::move(attributes);
  return e;
}

// A body as text, or anything json.dumps takes.
std::string BodyOf(const py::object& request) {
  if (py::isinstance<py::str>(request) || py::isinstance<py::bytes>(request))
    return request.cast<std::string>();
  return py::module_::import("json").attr("dumps")(request).cast<std::string>();
}

Decision Schedule(Scheduler& scheduler, const py::object& request,
                  const std::vector<EndpointState>& endpoints, std::string path,
                  std::map<std::string, std::string> headers, std::string request_id, int priority,
                  bool keep_in_flight) {
  RequestSpec spec;
  spec.body = BodyOf(request);
  spec.path = std::move(path);
  for (auto& [name, value] : headers) {
    spec.headers.emplace_back(py::str(name).attr("lower")().cast<std::string>(), value);
  }
  spec.request_id = std::move(request_id);
  spec.priority = priority;
  spec.keep_in_flight = keep_in_flight;
  StatusOr<Decision> decision = Internal("not made");
  PluginCall call(&scheduler);
  {
    py::gil_scoped_release release;
    decision = scheduler.Schedule(spec, endpoints);
  }
  if (!decision.ok()) call.Rethrow(decision.status());
  return std::move(*decision);
}

void Finish(Scheduler& scheduler, uint64_t decision_id) {
  const PluginCall call(&scheduler);
  // A thread that decides holds the scheduler and may be waiting for the GIL.
  const py::gil_scoped_release release;
  scheduler.Finish(decision_id);
}

std::unique_ptr<Scheduler> FromYaml(const std::string& yaml, uint64_t seed, const py::dict& scorers,
                                    const py::dict& filters, const py::dict& pickers) {
  sched::PluginRegistry registry = sched::BuiltinPlugins();
  std::set<std::string> used;
  Check(AddPythonPlugins(registry, scorers, filters, pickers, &used));
  sched::SchedulerOptions options;
  options.seed = seed;
  options.registry = &registry;
  std::unique_ptr<Scheduler> scheduler = Value(Scheduler::FromYaml(yaml, options));
  for (const py::dict& plugins : {scorers, filters, pickers}) {
    for (const auto& [type, unused] : plugins) {
      if (!used.contains(type.cast<std::string>()))
        Raise(InvalidArgument("the configuration has no plugin of type '" +
                              type.cast<std::string>() + "', which was given in Python"));
    }
  }
  return scheduler;
}

py::array_t<double> Array(const std::vector<double>& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

std::vector<std::string> Names(const Decision& decision, const std::vector<int>& indexes) {
  std::vector<std::string> out;
  out.reserve(indexes.size());
  for (int i : indexes) out.push_back(decision.trace.endpoints[i]);
  return out;
}

py::dict ProfileDict(const Decision& decision, const ProfileTrace& profile) {
  py::dict scores, weights, filters, out;
  for (const auto& score : profile.scores) {
    scores[py::str(score.scorer)] = Array(score.raw);
    weights[py::str(score.scorer)] = score.weight;
  }
  for (const auto& filter : profile.filters)
    filters[py::str(filter.filter)] = Names(decision, filter.kept);
  out["candidates"] = Names(decision, profile.candidates);
  out["filters"] = filters;
  out["scores"] = scores;
  out["weights"] = weights;
  out["totals"] = Array(profile.totals);
  out["picker"] = profile.picker;
  out["picked"] = Names(decision, profile.picked);
  out["tied"] = profile.tied;
  return out;
}

py::dict Profiles(const Decision& decision) {
  py::dict out;
  for (const ProfileTrace& profile : decision.trace.profiles) {
    out[py::str(profile.profile)] = ProfileDict(decision, profile);
  }
  return out;
}

void BindEndpoint(py::module_& m) {
  py::class_<EndpointState>(m, "Endpoint", "A model server and what it last said of itself.")
      .def(py::init(&MakeEndpoint), py::arg("name"), py::kw_only(),
           py::arg("address") = "127.0.0.1", py::arg("port") = 8000,
           py::arg("namespace") = "default",
           py::arg("labels") = std::map<std::string, std::string>(), py::arg("waiting") = 0.0,
           py::arg("running") = 0.0, py::arg("kv_usage") = 0.0, py::arg("block_size") = 16,
           py::arg("num_blocks") = 0, py::arg("attributes") = std::map<std::string, double>(),
           "waiting, running: requests; kv_usage: 0..1; block_size: tokens; num_blocks: 0 = not "
           "reported; attributes: name or name/producer -> number, as an extractor of the "
           "configuration would have filled it (customMetrics of core-metrics-extractor), read by "
           "endpoint-attribute-filter and -scorer. Scheduler.schedule raises InvalidArgumentError "
           "for one that no extractor fills.")
      .def_property_readonly(
          "name", [](const EndpointState& e) { return e.info.FullName(); }, "namespace/name")
      .def_property_readonly(
          "host_port", [](const EndpointState& e) { return e.info.HostPort(); }, "address:port")
      .def_property_readonly(
          "labels", [](const EndpointState& e) { return e.info.labels; }, "Pod labels, a copy.")
      .def_property(
          "waiting", [](const EndpointState& e) { return e.metrics.waiting; },
          [](EndpointState& e, double v) { e.metrics.waiting = v; }, "Requests waiting.")
      .def_property(
          "running", [](const EndpointState& e) { return e.metrics.running; },
          [](EndpointState& e, double v) { e.metrics.running = v; }, "Requests running.")
      .def_property(
          "kv_usage", [](const EndpointState& e) { return e.metrics.kv_usage; },
          [](EndpointState& e, double v) { e.metrics.kv_usage = v; },
          "Share of KV blocks in use, 0..1.")
      .def_property(
          "attributes", [](const EndpointState& e) { return e.attributes; },
          [](EndpointState& e, std::map<std::string, double> v) { e.attributes = std::move(v); },
          "Named numbers, a copy; assign to change them.")
      .def("__repr__", [](const EndpointState& e) {
        return "Endpoint('" + e.info.FullName() + "', " + e.info.HostPort() + ")";
      });
}

void BindDecision(py::module_& m) {
  py::class_<Decision>(m, "Decision", "Where a request goes, and why.")
      .def_readonly("ok", &Decision::ok, "False when the request was refused.")
      .def_property_readonly(
          "endpoint",
          [](const Decision& d) -> py::object {
            if (d.picked.empty()) return py::none();
            return py::str(d.picked[0].endpoint);
          },
          "namespace/name of the chosen endpoint; None when refused.")
      .def_property_readonly(
          "picked",
          [](const Decision& d) {
            py::list out;
            for (const auto& p : d.picked)
              out.append(py::make_tuple(p.endpoint, p.address, p.total));
            return out;
          },
          "(namespace/name, address:port, weighted total), best first.")
      .def_property_readonly(
          "prefill",
          [](const Decision& d) -> py::object {
            if (d.prefill.empty()) return py::none();
            return py::str(d.prefill);
          },
          "The prefill endpoint; None when the request is not disaggregated.")
      .def_readonly("decision_type", &Decision::decision_type, "decode-only, prefill-decode, …")
      .def_readonly("denied_status", &Decision::denied_status, "HTTP status of a refusal, else 0.")
      .def_readonly("denied_reason", &Decision::denied_reason)
      .def_property_readonly(
          "set_headers",
          [](const Decision& d) {
            return std::map<std::string, std::string>(d.set_headers.begin(), d.set_headers.end());
          },
          "Headers to set on the request.")
      .def_property_readonly("profiles", &Profiles,
                             "Per profile: candidates, filters, scores (scorer -> float64 array "
                             "[candidates], NaN = not scored), weights, "
                             "totals (float64 array [candidates]), picker, picked, tied.")
      .def_readonly("id", &Decision::id, "For Scheduler.finish.")
      .def(
          "to_json", [](const Decision& d) { return sched::ToJson(d.trace).Dump(); },
          "The decision trace as JSON text.")
      .def("__str__", [](const Decision& d) { return sched::ToText(d.trace); });
}

}  // namespace

void BindScheduler(py::module_& m) {
  BindEndpoint(m);
  BindDecision(m);
  py::class_<Scheduler>(m, "Scheduler",
                        "The endpoint picker's scheduler, without threads or sockets.")
      .def_static(
          "from_yaml", &FromYaml, py::arg("text") = "", py::kw_only(), py::arg("seed") = 1,
          py::arg("scorers") = py::dict(), py::arg("filters") = py::dict(),
          py::arg("pickers") = py::dict(),
          "From an EndpointPickerConfig document; '' is the built-in default. InvalidArgumentError "
          "names line and key.\n\n"
          "scorers, filters, pickers: plugin type -> callable, for types the document names. "
          "scorer(request, candidates, **parameters) returns numbers [n], NaN = not scored; "
          "filter(request, candidates, **parameters) returns bool [n], True = keep; "
          "picker(request, candidates, totals, **parameters) returns positions, best first. A "
          "class is made once with the parameters and its objects are called without. Attribute "
          "`consumes` lists the data types to read with candidates.data().")
      .def(
          "schedule", &Schedule, py::arg("request"), py::arg("endpoints"), py::kw_only(),
          py::arg("path") = "/v1/completions",
          py::arg("headers") = std::map<std::string, std::string>(), py::arg("request_id") = "",
          py::arg("priority") = 0, py::arg("keep_in_flight") = false,
          "Places a request: an OpenAI body as dict, str or bytes. InvalidArgumentError when it "
          "cannot be parsed; Error (INTERNAL) that names the plugin, caused by its exception, when "
          "a Python plugin fails: nothing is counted then. Releases the GIL.")
      .def("finish", &Finish, py::arg("decision_id"), "Ends a request that was kept in flight.")
      .def_property_readonly("warnings", &Scheduler::Warnings,
                             "What the loader completed or doubts.");
}

}  // namespace llmd::python
