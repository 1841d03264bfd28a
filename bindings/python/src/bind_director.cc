#include <pybind11/stl.h>

#include <cmath>
#include <optional>

#include "director_core.h"
#include "own_views.h"

namespace llmd::python {
namespace {

using Core = std::shared_ptr<DirectorCore>;

Core MakeDirector(const std::string& config, uint64_t seed, const py::dict& scorers,
                  const py::dict& filters, const py::dict& pickers, double start,
                  double staleness) {
  RefusePath(config, "Director", "pathlib.Path(…).read_text()");
  if (!(staleness > 0))
    Raise(InvalidArgument("staleness=" + Repr(py::float_(staleness)) +
                          ": expected more than 0, in seconds"));
  auto core = std::make_shared<DirectorCore>();
  AdvanceTo(core->clock, start);
  auto registry = std::make_shared<sched::PluginRegistry>(sched::BuiltinPlugins());
  Check(AddPythonPlugins(*registry, scorers, filters, pickers, &core->built));
  core->registry = registry;
  sched::DirectorOptions options;
  options.config_yaml = config;
  options.registry = core->registry;
  options.seed = seed;
  options.manual = true;
  options.attach_trace = false;
  options.metrics_staleness =
      staleness < 1e9 ? std::chrono::round<Duration>(std::chrono::duration<double>(staleness))
                      : Duration::max();
  core->director = Value(sched::Director::Create(std::move(options), nullptr, PythonLogger(),
                                                 core->metrics, core->clock));
  RequireUsed(core->built.types, scorers, filters, pickers);
  DeliverLogs();
  return core;
}

std::optional<double> Tick(DirectorCore& core, const std::optional<double>& now) {
  if (now) AdvanceTo(core.clock, *now);
  TimePoint due;
  // Whoever is answered may ask for more, which may be due earlier.
  while (core.Run([&](sched::Director& d) { due = d.Tick(core.clock.Now()); })) {
  }
  if (due == TimePoint::max()) return std::nullopt;
  double seconds = SecondsOf(due);
  const auto reached = std::chrono::round<Duration>(std::chrono::duration<double>(seconds));
  if (reached < due.time_since_epoch()) seconds = std::nextafter(seconds, INFINITY);
  return seconds;
}

// What a director can be told of it.
void RequirePlain(const PyEndpoint& e) {
  if (!e.attributes.empty())
    Raise(Unimplemented("endpoint '" + e.info->FullName() +
                        "' has attributes, which a director cannot be given"));
}

void SetEndpoints(DirectorCore& core, const py::object& endpoints) {
  const py::list list(endpoints);  // of an iterable that is gone through once
  std::map<std::string, PyEndpoint> given;
  std::vector<sched::EndpointInfo> infos;
  for (const PyEndpoint* e : EndpointsOf(list)) {
    RequirePlain(*e);
    if (!given.emplace(e->info->FullName(), *e).second)
      Raise(InvalidArgument("two endpoints are called '" + e->info->FullName() + "'"));
    infos.push_back(*e->info);
  }
  Status status;
  core.Run([&](sched::Director& d) {
    status = d.SetEndpoints(std::move(infos));
    if (status.ok()) {
      const py::gil_scoped_acquire gil;
      if (core.calls == 1) core.names.clear();
      core.FollowMembers();  // before anybody is told of them
    }
    for (auto e = given.begin(); status.ok() && e != given.end(); ++e)
      status = d.SetMetrics(e->first, e->second.metrics);
  });
  Check(status);
  core.given = std::move(given);
}

std::string FullName(const std::string& name) {
  return name.find('/') == std::string::npos ? "default/" + name : name;
}

void SetMetrics(DirectorCore& core, const py::object& which, const py::kwargs& metrics) {
  const bool whole = py::isinstance<PyEndpoint>(which);
  const std::string name =
      whole ? which.cast<PyEndpoint*>()->info->FullName() : FullName(which.cast<std::string>());
  const auto at = core.given.find(name);
  if (at == core.given.end()) Raise(NotFound("the director has no endpoint '" + name + "'"));
  PyEndpoint next = at->second;
  if (whole) {
    RequirePlain(*which.cast<PyEndpoint*>());
    next.metrics = which.cast<PyEndpoint*>()->metrics;
  }
  const py::object view = py::cast(&next, py::return_value_policy::reference);
  for (const auto& [key, value] : metrics) {
    if (!value.is_none()) py::setattr(view, key, value);  // checks it
  }
  at->second = next;
  Status status;
  core.Run([&](sched::Director& d) { status = d.SetMetrics(name, std::move(next.metrics)); });
  Check(status);
}

std::vector<sched::EndpointId> Excluded(const DirectorCore& core, const py::iterable& names) {
  std::vector<sched::EndpointId> out;
  for (const py::handle item : names) {
    const std::string name = FullName(item.cast<std::string>());
    const auto at = core.handles.find(name);
    if (at != core.handles.end())
      out.push_back(at->second);
    else if (!core.known.contains(name))
      Raise(NotFound("exclude: the director never had an endpoint '" + name + "'"));
  }
  return out;
}

py::object Callback(const char* name, const py::object& callback) {
  if (!callback.is_none() && PyCallable_Check(callback.ptr()) == 0)
    throw py::type_error(std::string(name) + " is not callable");
  return callback;
}

std::shared_ptr<Asked> MakeAsked(const DirectorCore& core, const py::object& request,
                                 const std::string& path,
                                 const std::optional<std::map<std::string, std::string>>& headers,
                                 const py::iterable& exclude) {
  auto asked = std::make_shared<Asked>();
  BodyText(request, asked->body);
  if (headers) asked->headers = LowerHeaders(*headers);
  asked->headers.emplace_back(":path", path.empty() ? PathOfBody(asked->body) : path);
  asked->exclude = Excluded(core, exclude);
  return asked;
}

py::object Route(DirectorCore& core, const py::object& request, const std::string& path,
                 const std::optional<std::map<std::string, std::string>>& headers,
                 const py::object& on_answer, const py::iterable& exclude,
                 std::optional<int32_t> priority, const py::object& on_evicted) {
  const std::shared_ptr<Asked> asked = MakeAsked(core, request, path, headers, exclude);
  asked->on_answer = Callback("on_answer", on_answer);
  asked->on_evicted = Callback("on_evicted", on_evicted);
  const bool may_be_evicted = !on_evicted.is_none();
  sched::Routing routing;
  bool answered = false;
  try {
    core.Run([&](sched::Director& d) {
      sched::RequestInput input;
      input.headers = &asked->headers;
      input.body = asked->body;
      input.exclude = asked->exclude;
      input.state = &asked->state;
      input.priority = priority;
      if (may_be_evicted)
        input.evicted = [asked](const sched::Denial& denial) {
          DirectorCore::Evicted(asked, denial);
        };
      answered = d.RouteNow(std::move(input), routing, [asked](sched::Routing later) {
        DirectorCore::Answered(asked, std::move(later));
      });
      if (answered)
        asked->state.reset();
      else
        ++core.waiting;
    });
  } catch (...) {
    core.End(std::move(routing.state));
    throw;
  }
  if (!answered) return py::cast(PyPending{core.shared_from_this(), asked});
  auto made = MakeRouting(core.shared_from_this(), std::move(routing));
  asked->answered = made;
  return py::cast(std::move(made));
}

void Reload(DirectorCore& core, const std::string& config) {
  RefusePath(config, "reload", "pathlib.Path(…).read_text()");
  Status status;
  core.Run([&](sched::Director& d) { status = d.Reload(config); });
  Check(status);
}

py::object FromJson(const std::string& text) {
  return py::module_::import("json").attr("loads")(text);
}

py::object Decisions(DirectorCore& core, size_t limit) {
  std::string text;
  core.Run([&](sched::Director& d) { text = d.Decisions(limit).Dump(); });
  return FromJson(text);
}

py::object Explain(DirectorCore& core, const std::string& request_id) {
  StatusOr<std::string> text = Internal("not asked");
  core.Run([&](sched::Director& d) { text = d.Explain(request_id); });
  return FromJson(Value(std::move(text)));
}

std::string MetricsPage(DirectorCore& core) {
  std::string text;
  core.Run([&](sched::Director&) { text = core.metrics.Expose(); });
  return text;
}

std::vector<std::string> Names(const DirectorCore& core) {
  std::vector<std::string> out;
  for (const auto& [name, e] : core.given) out.push_back(name);
  return out;
}

constexpr const char* kDirectorDoc =
    "The whole endpoint picker in virtual time: flow control, producers, answers. It has no "
    "threads and does nothing by itself; time passes with tick.\n\n"
    "What happens in a call is done when it returns: requests that are answered by it get their "
    "on_answer before, which may call the director again. What on_answer raises, the call raises, "
    "unless a plugin failed; of several the rest go to sys.unraisablehook, and so does what is "
    "raised while a Routing that nobody holds goes away.";

// A plugin may refer to its director. While a request's object shares the core its plugins are not
// the director's alone, and stay.
int Traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const DirectorCore* const core = ValueOf<DirectorCore>(self);
  if (core == nullptr || core->weak_from_this().use_count() != 1) return 0;
  return core->built.Visit(visit, arg);
}

int Clear(PyObject* self) {
  if (DirectorCore* const core = ValueOf<DirectorCore>(self)) core->built.Clear();
  return 0;
}

void BindTime(py::class_<DirectorCore, Core>& c) {
  c.def(py::init(&MakeDirector), py::arg("config") = "", py::kw_only(), py::arg("seed") = 1,
        py::arg("scorers") = py::dict(), py::arg("filters") = py::dict(),
        py::arg("pickers") = py::dict(), py::arg("start") = 0.0, py::arg("staleness") = 2.0,
        "config: an EndpointPickerConfig document; '' is the built-in default. seed: of "
        "tie-breaks and ids; 0 = drawn. scorers, filters, pickers: as for Scheduler.from_yaml. "
        "start: the time it begins at. staleness: seconds after which what an endpoint said of "
        "itself no longer counts. InvalidArgumentError names line and key.")
      .def_property_readonly(
          "now", [](const DirectorCore& d) { return SecondsOf(d.clock.Now()); },
          "Seconds; moved by tick only.")
      .def_property_readonly(
          "waiting", [](const DirectorCore& d) { return d.waiting.load(); },
          "Requests that wait for their answer.")
      .def("tick", &Tick, py::arg("now") = py::none(),
           "It is `now`, not earlier than before (None = no time has passed): does what is due, "
           "such as TTLs, and what new metrics allow. Returns when the next call is due unless "
           "something else happens before; None = not by time. Flows that nobody uses are looked "
           "through now and then, so that it may be due though nobody waits.")
      .def(
          "stop", [](DirectorCore& d) { d.Run([](sched::Director& x) { x.Stop(); }); },
          "Refuses all that wait. A director that goes away without it tells nobody.");
}

void BindState(py::class_<DirectorCore, Core>& c) {
  const auto none = py::none();
  c.def_property_readonly("endpoints", &Names, "namespace/name of the members, sorted.")
      .def("set_endpoints", &SetEndpoints, py::arg("endpoints"),
           "The members from now on, with what they say of themselves. One that was a member "
           "before, with the same address, keeps what is counted for it.")
      .def(
          "set_metrics",
          [](DirectorCore& d, const py::object& endpoint, const py::object& waiting,
             const py::object& running, const py::object& kv_usage, const py::object& block_size,
             const py::object& num_blocks, const py::object& active_models,
             const py::object& waiting_models, const py::object& max_active_models) {
            py::kwargs given;
            given["waiting"] = waiting;
            given["running"] = running;
            given["kv_usage"] = kv_usage;
            given["block_size"] = block_size;
            given["num_blocks"] = num_blocks;
            given["active_models"] = active_models;
            given["waiting_models"] = waiting_models;
            given["max_active_models"] = max_active_models;
            SetMetrics(d, endpoint, given);
          },
          py::arg("endpoint"), py::kw_only(), py::arg("waiting") = none, py::arg("running") = none,
          py::arg("kv_usage") = none, py::arg("block_size") = none, py::arg("num_blocks") = none,
          py::arg("active_models") = none, py::arg("waiting_models") = none,
          py::arg("max_active_models") = none,
          "What a member says of itself now: all that an Endpoint of its name says, or, for a "
          "name, what is given; the rest stays as it was. Requests that wait see it with the "
          "next tick. NotFoundError.");
}

void BindRoute(py::class_<DirectorCore, Core>& c) {
  c.def("route", &Route, py::arg("request"), py::kw_only(), py::arg("path") = "",
        py::arg("headers") = py::none(), py::arg("on_answer") = py::none(),
        py::arg("exclude") = py::tuple(), py::arg("priority") = py::none(),
        py::arg("on_evicted") = py::none(),
        "Asks where an OpenAI body (dict, str or bytes) is to go: a Routing, or a Pending when it "
        "has to wait; on_answer(routing) is then called once, by the call that answers it.\n\n"
        "path: '' = by the body, as for Scheduler.schedule, or InvalidArgumentError. headers: "
        "x-request-id, x-llm-d-inference-fairness-id, x-llm-d-inference-ttl … exclude: names of "
        "endpoints that are not to serve it; those that left exclude nobody, a name that was never "
        "a member is NotFoundError. priority: its band, below 0 = sheddable; "
        "None "
        "= 0. on_evicted(refusal): it may be taken back after it was routed, which ends it. What "
        "is wrong with a request is a "
        "refusal. A Python plugin that fails makes the call that ran it raise llmd.Error "
        "(INTERNAL); when route raises, its request has ended.")
      .def("reload", &Reload, py::arg("config"),
           "Goes over to another document; requests that wait keep their place. "
           "InvalidArgumentError leaves all as it was.")
      .def("decisions", &Decisions, py::arg("limit") = 100, "The last ones, newest first.")
      .def("explain", &Explain, py::arg("request_id"),
           "The decisions under a request id: the newest, with the others as `earlier`. "
           "NotFoundError.")
      .def("metrics_page", &MetricsPage, "What a picker shows under /metrics, as text.")
      .def("__repr__", [](const DirectorCore& d) {
        return "<llmd.Director at " + Repr(py::float_(SecondsOf(d.clock.Now()))) + " s, " +
               std::to_string(d.given.size()) + " endpoints>";
      });
}

}  // namespace

void BindDirector(py::module_& m) {
  const py::custom_type_setup collected([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->ht_type.tp_traverse = &Traverse;
    type->ht_type.tp_clear = &Clear;
  });
  py::class_<DirectorCore, Core> director(m, "Director", kDirectorDoc, collected);
  BindTime(director);
  BindState(director);
  BindRoute(director);
}

}  // namespace llmd::python
