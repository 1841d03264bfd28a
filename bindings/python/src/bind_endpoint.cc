#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>

#include "bindings.h"
#include "endpoint.h"

namespace llmd::python {
namespace {

using sched::EndpointInfo;
using sched::EndpointMetrics;
using Names = std::vector<std::string>;
using Numbers = std::map<std::string, double>;
using Column = py::array_t<double, py::array::c_style | py::array::forcecast>;

[[noreturn]] void Refuse(const std::string& what, py::handle value, const char* expected) {
  Raise(InvalidArgument(what + "=" + Repr(value) + ": expected " + expected));
}

double Requests(const char* what, double value) {
  if (value < 0 || std::isinf(value))
    Refuse(what, py::float_(value), "0 or more, or NaN = unknown");
  return value;
}
double Share(const char* what, double value) {
  if (value < 0 || value > 1) Refuse(what, py::float_(value), "0 to 1, or NaN = unknown");
  return value;
}
int Count(const char* what, int64_t value) {
  if (value < 0 || value > INT32_MAX) Refuse(what, py::int_(value), "0 to 2147483647");
  return static_cast<int>(value);
}
std::string Word(const char* what, std::string value) {
  if (value.empty() || value.find('/') != std::string::npos)
    Refuse(what, py::str(value), "a name without '/'");
  return value;
}

EndpointInfo InfoOf(std::string name, std::string address, int64_t port, std::string ns,
                    std::map<std::string, std::string> labels) {
  EndpointInfo info;
  info.name = Word("name", std::move(name));
  info.ns = Word("namespace", std::move(ns));
  if (address.empty()) Refuse("address", py::str(address), "an IP address");
  if (port < 1 || port > 65535) Refuse("port", py::int_(port), "1 to 65535");
  info.address = std::move(address);
  info.port = static_cast<uint16_t>(port);
  info.labels = std::move(labels);
  return info;
}

PyEndpoint MakeEndpoint(std::string name, std::string address, int64_t port, std::string ns,
                        std::map<std::string, std::string> labels, double waiting, double running,
                        double kv_usage, int64_t block_size, int64_t num_blocks, Numbers attributes,
                        Names active_models, Names waiting_models, int64_t max_active_models) {
  PyEndpoint e;
  e.info = std::make_shared<const EndpointInfo>(
      InfoOf(std::move(name), std::move(address), port, std::move(ns), std::move(labels)));
  EndpointMetrics& m = e.metrics;
  m.waiting = Requests("waiting", waiting);
  m.running = Requests("running", running);
  m.kv_usage = Share("kv_usage", kv_usage);
  m.block_size = Count("block_size", block_size);
  m.num_blocks = Count("num_blocks", num_blocks);
  m.active_models = std::move(active_models);
  m.waiting_models = std::move(waiting_models);
  m.max_active_models = Count("max_active_models", max_active_models);
  m.ever = true;
  e.attributes = std::move(attributes);
  e.Touch();
  return e;
}

// A copy whose metrics are others.
PyEndpoint Copy(const PyEndpoint& e) {
  PyEndpoint out = e;
  out.Touch();
  return out;
}

py::dict Arguments(const PyEndpoint& e) {
  py::dict out;
  out["address"] = e.info->address;
  out["port"] = e.info->port;
  out["namespace"] = e.info->ns;
  out["labels"] = e.info->labels;
  out["waiting"] = e.metrics.waiting;
  out["running"] = e.metrics.running;
  out["kv_usage"] = e.metrics.kv_usage;
  out["block_size"] = e.metrics.block_size;
  out["num_blocks"] = e.metrics.num_blocks;
  out["attributes"] = e.attributes;
  out["active_models"] = e.metrics.active_models;
  out["waiting_models"] = e.metrics.waiting_models;
  out["max_active_models"] = e.metrics.max_active_models;
  return out;
}

// Only what differs from the defaults.
std::string EndpointRepr(const PyEndpoint& e) {
  static const py::dict& defaults = *new py::dict(Arguments(
      MakeEndpoint("a", "127.0.0.1", 8000, "default", {}, 0, 0, 0, 16, 0, {}, {}, {}, 0)));
  std::string out = "Endpoint(" + Repr(py::str(e.info->name));
  for (const auto& [key, value] : Arguments(e)) {
    if (!value.equal(defaults[key])) out += ", " + key.cast<std::string>() + "=" + Repr(value);
  }
  return out + ")";
}

PyEndpoint Restore(const std::string& name, const py::dict& arguments) {
  return *py::type::of<PyEndpoint>()(name, **arguments).cast<PyEndpoint*>();
}

template <typename T, typename Check>
auto Setter(T EndpointMetrics::* field, const char* name, Check check) {
  return [field, name, check](PyEndpoint& e, T value) {
    e.metrics.*field = check(name, value);
    e.Touch();
  };
}
template <typename T>
auto Getter(T EndpointMetrics::* field) {
  return [field](const PyEndpoint& e) { return e.metrics.*field; };
}

void BindIdentity(py::class_<PyEndpoint>& c) {
  c.def_property_readonly("name", [](const PyEndpoint& e) { return e.info->name; })
      .def_property_readonly("namespace", [](const PyEndpoint& e) { return e.info->ns; })
      .def_property_readonly(
          "full_name", [](const PyEndpoint& e) { return e.info->FullName(); },
          "namespace/name: what decisions call it.")
      .def_property_readonly("address", [](const PyEndpoint& e) { return e.info->address; })
      .def_property_readonly("port", [](const PyEndpoint& e) { return e.info->port; })
      .def_property_readonly(
          "host_port", [](const PyEndpoint& e) { return e.info->HostPort(); }, "address:port.")
      .def_property_readonly(
          "labels", [](const PyEndpoint& e) { return e.info->labels; }, "A copy.")
      .def("__repr__", &EndpointRepr)
      .def("__copy__", &Copy)
      .def("__deepcopy__", [](const PyEndpoint& e, const py::dict&) { return Copy(e); })
      .def(
          py::pickle([](const PyEndpoint& e) { return py::make_tuple(e.info->name, Arguments(e)); },
                     [](const py::tuple& t) {
                       return Restore(t[0].cast<std::string>(), t[1].cast<py::dict>());
                     }));
}

void BindMetrics(py::class_<PyEndpoint>& c) {
  using M = EndpointMetrics;
  c.def_property("waiting", Getter(&M::waiting), Setter(&M::waiting, "waiting", Requests),
                 "Requests waiting; NaN = unknown.")
      .def_property("running", Getter(&M::running), Setter(&M::running, "running", Requests),
                    "Requests running; NaN = unknown.")
      .def_property("kv_usage", Getter(&M::kv_usage), Setter(&M::kv_usage, "kv_usage", Share),
                    "Share of KV blocks in use, 0..1; NaN = unknown.")
      .def_property("block_size", Getter(&M::block_size),
                    Setter(&M::block_size, "block_size", Count),
                    "Tokens a KV block; 0 = not reported.")
      .def_property("num_blocks", Getter(&M::num_blocks),
                    Setter(&M::num_blocks, "num_blocks", Count),
                    "KV blocks in all; 0 = not reported.")
      .def_property("max_active_models", Getter(&M::max_active_models),
                    Setter(&M::max_active_models, "max_active_models", Count),
                    "LoRA adapters that fit.")
      .def_property("active_models", Getter(&M::active_models),
                    Setter(&M::active_models, "", [](const char*, Names& v) { return v; }),
                    "LoRA adapters loaded; set it whole.")
      .def_property("waiting_models", Getter(&M::waiting_models),
                    Setter(&M::waiting_models, "", [](const char*, Names& v) { return v; }),
                    "LoRA adapters waited for; set it whole.")
      .def_property(
          "attributes", [](const PyEndpoint& e) { return e.attributes; },
          [](PyEndpoint& e, Numbers value) {
            e.attributes = std::move(value);
            e.Touch();
          },
          "What extractors would have filled; set it whole.");
}

size_t Index(const PySet& s, const py::object& which) {
  int64_t i = -1;
  if (py::isinstance<py::str>(which)) {
    const std::string name = which.cast<std::string>();
    i = s.set->Find(name.find('/') == std::string::npos ? "default/" + name : name);
    if (i < 0) Raise(NotFound("the set has no endpoint '" + name + "'"));
  } else {
    i = which.cast<int64_t>();
    if (i < 0 || i >= static_cast<int64_t>(s.set->size()))
      Raise(OutOfRange("endpoint " + std::to_string(i) + " of " + std::to_string(s.set->size())));
  }
  return static_cast<size_t>(i);
}

void RequireIdle(const PySet& s) {
  if (s.busy > 0)
    Raise(FailedPrecondition("the prepared set is in use by a call of schedule in progress"));
}

double Or(const py::object& value, double present) {
  return value.is_none() ? present : value.cast<double>();
}

void Update(PySet& s, const py::object& which, const py::object& waiting, const py::object& running,
            const py::object& kv_usage) {
  RequireIdle(s);
  const size_t i = Index(s, which);
  const EndpointMetrics& m = s.set->metrics(i);
  const double w = Requests("waiting", Or(waiting, m.waiting)),
               r = Requests("running", Or(running, m.running)),
               kv = Share("kv_usage", Or(kv_usage, m.kv_usage));
  s.set->SetGauges(i, w, r, kv);
}

std::vector<double> ColumnOf(const PySet& s, const char* what, const py::object& given,
                             double EndpointMetrics::* field,
                             double (*check)(const char*, double)) {
  const size_t n = s.set->size();
  std::vector<double> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = s.set->metrics(i).*field;
  if (given.is_none()) return out;
  const Column values = Column::ensure(given);
  if (!values || values.ndim() != 1 || values.shape(0) != static_cast<py::ssize_t>(n)) {
    PyErr_Clear();
    Raise(InvalidArgument(std::string(what) + ": expected " + std::to_string(n) + " numbers"));
  }
  for (size_t i = 0; i < n; ++i) out[i] = check(what, values.data()[i]);
  return out;
}

void SetGauges(PySet& s, const py::object& waiting, const py::object& running,
               const py::object& kv_usage) {
  RequireIdle(s);
  const auto w = ColumnOf(s, "waiting", waiting, &EndpointMetrics::waiting, &Requests),
             r = ColumnOf(s, "running", running, &EndpointMetrics::running, &Requests),
             kv = ColumnOf(s, "kv_usage", kv_usage, &EndpointMetrics::kv_usage, &Share);
  for (size_t i = 0; i < w.size(); ++i) s.set->SetGauges(i, w[i], r[i], kv[i]);
}

void Replace(PySet& s, const PyEndpoint& endpoint) {
  RequireIdle(s);
  const int i = s.set->Find(endpoint.info->FullName());
  if (i < 0 || !(s.set->info(static_cast<size_t>(i)) == *endpoint.info))
    Raise(NotFound("the set has no such endpoint: " + EndpointRepr(endpoint)));
  Check(s.set->SetMetrics(static_cast<size_t>(i), endpoint.metrics, endpoint.attributes));
}

py::array_t<double> Gauges(const PySet& s, double EndpointMetrics::* field) {
  py::array_t<double> out(static_cast<py::ssize_t>(s.set->size()));
  for (size_t i = 0; i < s.set->size(); ++i) out.mutable_data()[i] = s.set->metrics(i).*field;
  return out;
}

Names FullNames(const PySet& s) {
  Names out;
  for (size_t i = 0; i < s.set->size(); ++i) out.push_back(s.set->info(i).FullName());
  return out;
}

void BindSet(py::module_& m) {
  const py::custom_type_setup collected([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    // What refers to the scheduler; it breaks the circle.
    type->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
      Py_VISIT(Py_TYPE(self));
      if (const PySet* const set = ValueOf<PySet>(self)) Py_VISIT(set->owner.ptr());
      return 0;
    };
  });
  py::class_<PySet>(m, "PreparedSet", collected,
                    "Endpoints made ready by Scheduler.prepare, for that scheduler's schedule and "
                    "schedule_many. Changing it while another thread decides with it raises "
                    "llmd.Error (FAILED_PRECONDITION).")
      .def("__len__", [](const PySet& s) { return s.set->size(); })
      .def("__repr__",
           [](const PySet& s) {
             return "<llmd.PreparedSet of " + std::to_string(s.set->size()) + " endpoints>";
           })
      .def_property_readonly("names", &FullNames, "namespace/name, length n.")
      .def(
          "index", [](const PySet& s, const std::string& name) { return Index(s, py::str(name)); },
          py::arg("name"), "Position of 'name' or 'namespace/name'. NotFoundError.")
      .def_property_readonly(
          "waiting", [](const PySet& s) { return Gauges(s, &EndpointMetrics::waiting); },
          "float64 [n], a copy; see set_gauges.")
      .def_property_readonly(
          "running", [](const PySet& s) { return Gauges(s, &EndpointMetrics::running); },
          "float64 [n], a copy.")
      .def_property_readonly(
          "kv_usage", [](const PySet& s) { return Gauges(s, &EndpointMetrics::kv_usage); },
          "float64 [n], a copy.")
      .def("update", &Update, py::arg("endpoint"), py::kw_only(), py::arg("waiting") = py::none(),
           py::arg("running") = py::none(), py::arg("kv_usage") = py::none(),
           "New gauges of one endpoint, named or by position; what is not given stays.")
      .def("set_gauges", &SetGauges, py::kw_only(), py::arg("waiting") = py::none(),
           py::arg("running") = py::none(), py::arg("kv_usage") = py::none(),
           "New gauges of all, numbers [n] each; what is not given stays.")
      .def("replace", &Replace, py::arg("endpoint"),
           "All metrics of an endpoint of the same name, address and labels. NotFoundError.");
}

}  // namespace

void PyEndpoint::Touch() {
  static uint64_t last = 0;
  version = ++last;
}

std::vector<PyEndpoint*> EndpointsOf(py::handle endpoints) {
  std::vector<PyEndpoint*> out;
  for (const py::handle item : endpoints) {
    if (!py::isinstance<PyEndpoint>(item)) {
      throw py::type_error("endpoints[" + std::to_string(out.size()) + "] is " +
                           Repr(py::type::of(item)) + ", expected llmd.Endpoint");
    }
    out.push_back(item.cast<PyEndpoint*>());
  }
  return out;
}

std::vector<sched::EndpointState> StatesOf(py::handle endpoints) {
  std::vector<sched::EndpointState> out;
  for (const PyEndpoint* e : EndpointsOf(endpoints)) out.push_back(e->State());
  return out;
}

std::unique_ptr<ListCache> ListCache::Make(sched::Scheduler& scheduler, py::handle endpoints) {
  auto out = std::make_unique<ListCache>();
  std::vector<sched::EndpointState> states;
  const py::list list(py::reinterpret_borrow<py::object>(endpoints));
  for (const PyEndpoint* e : EndpointsOf(list)) {
    out->endpoints_.push_back(e);
    out->versions_.push_back(e->version);
    states.push_back(e->State());
  }
  for (const py::handle item : list)
    out->objects_.push_back(py::reinterpret_borrow<py::object>(item));
  StatusOr<std::unique_ptr<sched::PreparedSet>> set = Internal("not made");
  {
    // Another thread may hold the scheduler and wait for the GIL.
    const py::gil_scoped_release release;
    set = scheduler.Prepare(states);
  }
  out->set_ = Value(std::move(set));
  return out;
}

bool ListCache::Update(py::handle endpoints) {
  if (!PyList_Check(endpoints.ptr()) ||
      PyList_GET_SIZE(endpoints.ptr()) != static_cast<Py_ssize_t>(objects_.size()))
    return false;
  for (size_t i = 0; i < objects_.size(); ++i) {
    if (PyList_GET_ITEM(endpoints.ptr(), static_cast<Py_ssize_t>(i)) != objects_[i].ptr())
      return false;
  }
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const PyEndpoint& e = *endpoints_[i];
    if (e.version == versions_[i]) continue;
    versions_[i] = 0;  // whatever happens below
    Check(set_->SetMetrics(i, e.metrics, e.attributes));
    versions_[i] = e.version;
  }
  return true;
}

void BindEndpoint(py::module_& m) {
  py::class_<PyEndpoint> endpoint(
      m, "Endpoint", "A model server: its identity, which stays, and its gauges, which change.");
  endpoint.def(
      py::init(&MakeEndpoint), py::arg("name"), py::kw_only(), py::arg("address") = "127.0.0.1",
      py::arg("port") = 8000, py::arg("namespace") = "default",
      py::arg("labels") = std::map<std::string, std::string>(), py::arg("waiting") = 0.0,
      py::arg("running") = 0.0, py::arg("kv_usage") = 0.0, py::arg("block_size") = 16,
      py::arg("num_blocks") = 0, py::arg("attributes") = Numbers(),
      py::arg("active_models") = Names(), py::arg("waiting_models") = Names(),
      py::arg("max_active_models") = 0,
      "waiting, running: requests; kv_usage: 0..1; each may be NaN = unknown; block_size: tokens a "
      "KV block; num_blocks: of its cache; attributes: what extractors would have filled "
      "(customMetrics), by name or name/producer; active_models, waiting_models, "
      "max_active_models: LoRA adapters loaded, waited for, how many fit. InvalidArgumentError "
      "names what is out of range.");
  BindIdentity(endpoint);
  BindMetrics(endpoint);
  BindSet(m);
}

}  // namespace llmd::python
