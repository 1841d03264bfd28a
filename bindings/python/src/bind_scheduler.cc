#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>

#include "bindings.h"
#include "call.h"
#include "decision.h"
#include "endpoint.h"
#include "llmd/sched/scheduler.h"
#include "own_views.h"
#include "python_plugins.h"

namespace llmd::python {
namespace {

using sched::Decision;
using sched::PreparedSet;
using sched::RequestSpec;
using sched::Scheduler;

constexpr size_t kBulk = 64;  // requests between two looks at Python's signals

// Touched with the GIL held only, but for the calls of `scheduler`.
struct PyScheduler {
  FakeClock clock;
  BuiltPlugins built;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<ListCache> last;  // null while a call uses it
  Callee callee{"scheduler"};
};

// A prepared set that a call decides with.
class InUse {
 public:
  explicit InUse(PySet& set) : set_(set) { ++set_.busy; }
  ~InUse() { --set_.busy; }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  PySet& set_;
};

RequestSpec SpecOf(const std::string& path, const std::map<std::string, std::string>& headers,
                   int priority, bool keep_in_flight) {
  RequestSpec spec;
  spec.path = path;
  if (!headers.empty()) spec.headers = LowerHeaders(headers);
  spec.priority = priority;
  spec.keep_in_flight = keep_in_flight;
  return spec;
}

StatusOr<Decision> DecideOn(Scheduler& scheduler, const RequestSpec& spec, const PreparedSet& set) {
  const py::gil_scoped_release release;
  return scheduler.Schedule(spec, set);
}

StatusOr<Decision> DecideOnList(PyScheduler& self, const RequestSpec& spec, py::handle endpoints) {
  std::unique_ptr<ListCache> cache = std::move(self.last);
  if (cache == nullptr || !cache->Update(endpoints))
    cache = ListCache::Make(*self.scheduler, endpoints);
  StatusOr<Decision> decision = DecideOn(*self.scheduler, spec, cache->set());
  self.last = std::move(cache);
  return decision;
}

PyDecision Schedule(PyScheduler& self, py::handle request, py::handle endpoints,
                    const std::string& path, const std::map<std::string, std::string>& headers,
                    std::string request_id, int priority, bool keep_in_flight) {
  RequestSpec spec = SpecOf(path, headers, priority, keep_in_flight);
  BodyText(request, spec.body);
  spec.request_id = std::move(request_id);
  spec.recording = sched::Recording::kRecord;
  Call call(self.callee, self.scheduler.get());
  StatusOr<Decision> decision = Internal("not made");
  if (py::isinstance<PySet>(endpoints)) {
    PySet& set = *endpoints.cast<PySet*>();
    const InUse use(set);
    decision = DecideOn(*self.scheduler, spec, *set.set);
  } else {
    decision = DecideOnList(self, spec, endpoints);
  }
  if (!decision.ok()) call.Raise(decision.status());
  return {std::move(*decision), {}};
}

// Columns, one entry a request.
struct PyDecisions {
  explicit PyDecisions(py::ssize_t n) : endpoint(n), prefill(n), status(n), total(n), id(n) {}
  void Set(py::ssize_t i, const Decision& d) {
    endpoint.mutable_data()[i] = d.ok ? static_cast<int32_t>(d.picked[0].index) : -1;
    prefill.mutable_data()[i] = d.prefill_index;
    status.mutable_data()[i] = d.denied_status;
    total.mutable_data()[i] = d.ok ? d.picked[0].total : std::nan("");
    id.mutable_data()[i] = d.id;
  }
  py::array_t<int32_t> endpoint, prefill, status;
  py::array_t<double> total;
  py::array_t<uint64_t> id;
};

PyDecisions ScheduleMany(PyScheduler& self, const py::sequence& requests, PySet& set,
                         const std::string& path, const std::map<std::string, std::string>& headers,
                         int priority, bool keep_in_flight) {
  RequestSpec spec = SpecOf(path, headers, priority, keep_in_flight);
  spec.recording = sched::Recording::kNone;
  Call call(self.callee, self.scheduler.get());
  const InUse use(set);
  const size_t n = requests.size();
  PyDecisions out(static_cast<py::ssize_t>(n));
  std::vector<std::string> bodies(std::min(n, kBulk));
  std::vector<Decision> decisions(bodies.size());
  for (size_t begin = 0; begin < n; begin += kBulk) {
    const size_t count = std::min(kBulk, n - begin);
    for (size_t i = 0; i < count; ++i) BodyText(py::object(requests[begin + i]), bodies[i]);
    size_t done = 0;
    Status failed;
    {
      const py::gil_scoped_release release;
      for (; done < count && failed.ok(); ++done) {
        spec.body.swap(bodies[done]);
        StatusOr<Decision> decision = self.scheduler->Schedule(spec, *set.set);
        spec.body.swap(bodies[done]);
        failed = decision.status();
        if (decision.ok()) decisions[done] = std::move(*decision);
      }
    }
    if (!failed.ok())
      call.Raise(failed.WithContext("requests[" + std::to_string(begin + done - 1) + "]"));
    for (size_t i = 0; i < count; ++i) out.Set(static_cast<py::ssize_t>(begin + i), decisions[i]);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
  return out;
}

PySet Prepare(const py::object& owner, py::handle endpoints) {
  PyScheduler& self = *owner.cast<PyScheduler*>();
  const std::vector<sched::EndpointState> states = StatesOf(endpoints);
  Call call(self.callee, self.scheduler.get());
  StatusOr<std::unique_ptr<PreparedSet>> set = Internal("not made");
  {
    const py::gil_scoped_release release;
    set = self.scheduler->Prepare(states);
  }
  return {owner, Value(std::move(set)), 0};
}

std::map<std::string, std::string> FirstToken(PyScheduler& self, uint64_t decision_id) {
  Call call(self.callee, self.scheduler.get());
  StatusOr<sched::HeaderList> headers = Internal("not made");
  {
    // A thread that decides holds the scheduler and may be waiting for the GIL.
    const py::gil_scoped_release release;
    headers = self.scheduler->FirstToken(decision_id);
  }
  if (!headers.ok()) call.Raise(headers.status());
  return {headers->begin(), headers->end()};
}

int64_t Tokens(const py::dict& usage, const char* key) {
  if (!usage.contains(key) || usage[key].is_none()) return -1;
  const auto count = usage[key].cast<int64_t>();
  if (count < 0)
    Raise(InvalidArgument("usage['" + std::string(key) + "']=" + std::to_string(count) +
                          ": expected 0 or more"));
  return count;
}

sched::Usage UsageOf(const py::object& given) {
  sched::Usage out;
  if (given.is_none()) return out;
  const py::dict usage(given);
  out.prompt_tokens = Tokens(usage, "prompt_tokens");
  out.completion_tokens = Tokens(usage, "completion_tokens");
  out.total_tokens = Tokens(usage, "total_tokens");
  out.cached_tokens = Tokens(usage, "cached_tokens");
  if (usage.contains("prompt_tokens_details") && !usage["prompt_tokens_details"].is_none())
    out.cached_tokens = Tokens(py::dict(usage["prompt_tokens_details"]), "cached_tokens");
  return out;
}

void Finish(PyScheduler& self, uint64_t decision_id, const py::object& usage, bool aborted) {
  sched::AnswerEnd end;
  end.usage = UsageOf(usage);
  end.aborted = aborted;
  Call call(self.callee, self.scheduler.get());
  Status status;
  {
    const py::gil_scoped_release release;
    status = self.scheduler->End(decision_id, end);
  }
  if (!status.ok()) call.Raise(status);
}

double Now(const PyScheduler& self) {
  return SecondsOf(self.clock.Now());
}

void TellWarnings(const Scheduler& scheduler) {
  const py::object logger = py::module_::import("logging").attr("getLogger")("llmd");
  for (const std::string& warning : scheduler.Warnings()) logger.attr("info")("%s", warning);
}

std::unique_ptr<PyScheduler> FromYaml(const std::string& yaml, uint64_t seed,
                                      const py::dict& scorers, const py::dict& filters,
                                      const py::dict& pickers) {
  RefusePath(yaml, "from_yaml", "Scheduler.from_file");
  auto self = std::make_unique<PyScheduler>();
  sched::PluginRegistry registry = sched::BuiltinPlugins();
  Check(AddPythonPlugins(registry, scorers, filters, pickers, &self->built));
  sched::SchedulerOptions options;
  options.seed = seed;
  options.registry = &registry;
  options.clock = &self->clock;
  options.logger = PythonLogger();
  self->scheduler = Value(Scheduler::FromYaml(yaml, options));
  RequireUsed(self->built.types, scorers, filters, pickers);
  TellWarnings(*self->scheduler);
  return self;
}

std::unique_ptr<PyScheduler> FromFile(const py::object& path, uint64_t seed,
                                      const py::dict& scorers, const py::dict& filters,
                                      const py::dict& pickers) {
  const py::object read = py::module_::import("pathlib").attr("Path")(path).attr("read_text");
  std::string text;
  try {
    text = read(py::arg("encoding") = "utf-8").cast<std::string>();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_FileNotFoundError)) throw;
    Raise(NotFound("cannot read '" + py::str(path).cast<std::string>() + "': no such file"));
  }
  text += '\n';  // a text, however short
  return FromYaml(text, seed, scorers, filters, pickers);
}

void BindDecisions(py::module_& m) {
  py::class_<PyDecisions>(m, "Decisions",
                          "What schedule_many decided: columns of length n, in the order of the "
                          "requests.")
      .def("__len__", [](const PyDecisions& d) { return d.endpoint.size(); })
      .def("__repr__",
           [](const PyDecisions& d) {
             return "<llmd.Decisions of " + std::to_string(d.endpoint.size()) + " requests>";
           })
      .def_property_readonly(
          "endpoint", [](const PyDecisions& d) { return d.endpoint; },
          "Position in the set, int32; -1 = refused.")
      .def_property_readonly(
          "prefill", [](const PyDecisions& d) { return d.prefill; },
          "Position of the prefill endpoint, int32; -1 = none.")
      .def_property_readonly(
          "status", [](const PyDecisions& d) { return d.status; },
          "HTTP status of a refusal, int32; 0 = none.")
      .def_property_readonly(
          "total", [](const PyDecisions& d) { return d.total; },
          "Weighted total of the endpoint, float64; NaN = refused.")
      .def_property_readonly(
          "id", [](const PyDecisions& d) { return d.id; },
          "For Scheduler.first_token and finish, uint64.");
}

constexpr const char* kFromYamlDoc =
    "From an EndpointPickerConfig document; '' is the built-in default. InvalidArgumentError "
    "names line and key.\n\n"
    "seed: of tie-breaks and of request.random(); the same document, seed and calls give the same "
    "decisions.\n\n"
    "scorers, filters, pickers: plugin type -> callable, for types the document names. "
    "scorer(request, candidates, **parameters) returns numbers [n], NaN = not scored; "
    "filter(request, candidates, **parameters) returns bool [n], True = keep; "
    "picker(request, candidates, totals, **parameters) returns positions, best first. A "
    "class is made once with the parameters and its objects are called without. Attribute "
    "`consumes` lists the data types to read with candidates.data(). Optional methods "
    "on_routed(request, endpoint, prefill), on_first_token(request, endpoint) and "
    "on_end(request, endpoint, usage) are told how requests fare.";

void BindMaking(py::class_<PyScheduler>& c) {
  c.def_static("from_yaml", &FromYaml, py::arg("text") = "", py::kw_only(), py::arg("seed") = 1,
               py::arg("scorers") = py::dict(), py::arg("filters") = py::dict(),
               py::arg("pickers") = py::dict(), kFromYamlDoc)
      .def_static("from_file", &FromFile, py::arg("path"), py::kw_only(), py::arg("seed") = 1,
                  py::arg("scorers") = py::dict(), py::arg("filters") = py::dict(),
                  py::arg("pickers") = py::dict(),
                  "from_yaml of what the file holds. NotFoundError.")
      .def(
          "prepare", &Prepare, py::arg("endpoints"),
          "Makes endpoints ready once, for many calls. InvalidArgumentError when two share a name.")
      .def_property(
          "now", &Now, [](PyScheduler& s, double seconds) { AdvanceTo(s.clock, seconds); },
          "Seconds since the scheduler was made, as its plugins see the time. It stands "
          "still until it is set, and goes forward only.")
      .def_property_readonly(
          "warnings", [](const PyScheduler& s) { return s.scheduler->Warnings(); },
          "What the loader completed or doubts.");
}

void BindCalls(py::class_<PyScheduler>& c) {
  c.def("schedule", &Schedule, py::arg("request"), py::arg("endpoints"), py::kw_only(),
        py::arg("path") = "", py::arg("headers") = std::map<std::string, std::string>(),
        py::arg("request_id") = "", py::arg("priority") = 0, py::arg("keep_in_flight") = false,
        "Places a request: an OpenAI body as dict, str or bytes, on one of the endpoints: a "
        "sequence of Endpoint (cheapest as the same list each time) or what prepare made.\n\n"
        "path: '' = by the body: messages -> /v1/chat/completions, prompt -> /v1/completions, "
        "input -> /v1/responses or /v1/embeddings; what follows '?' is ignored, a path that no "
        "parser is for is refused. keep_in_flight: count it on its endpoints until "
        "finish(decision.id).\n\n"
        "InvalidArgumentError when it cannot be parsed; Error (INTERNAL) that names the plugin, "
        "caused by its exception, when a Python plugin fails: nothing is counted then. Releases "
        "the GIL.")
      .def("schedule_many", &ScheduleMany, py::arg("requests"), py::arg("endpoints"), py::kw_only(),
           py::arg("path") = "", py::arg("headers") = std::map<std::string, std::string>(),
           py::arg("priority") = 0, py::arg("keep_in_flight") = false,
           "schedule for a sequence of bodies, one after another, over a prepared set; path, "
           "headers and priority are those of all. An error names the request: those before it "
           "are decided.")
      .def("first_token", &FirstToken, py::arg("decision_id"),
           "The answer of a request kept in flight has begun. Returns headers to set on the "
           "answer. Unknown ids, and a second call, do nothing.")
      .def("finish", &Finish, py::arg("decision_id"), py::kw_only(), py::arg("usage") = py::none(),
           py::arg("aborted") = false,
           "Ends a request that was kept in flight. usage: prompt_tokens, completion_tokens, "
           "total_tokens, cached_tokens, as in an OpenAI answer; aborted: the answer did not end "
           "by itself. Unknown ids are ignored.")
      .def("__repr__", [](const PyScheduler& s) {
        return "<llmd.Scheduler at " + Repr(py::float_(Now(s))) + " s>";
      });
}

// A plugin, or what it holds, may refer to its scheduler: the collector has to see both ways.
int Traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const PyScheduler* const scheduler = ValueOf<PyScheduler>(self);
  if (scheduler == nullptr) return 0;
  if (const int stop = scheduler->built.Visit(visit, arg); stop != 0) return stop;
  if (scheduler->last == nullptr) return 0;
  for (const py::object& endpoint : scheduler->last->objects()) Py_VISIT(endpoint.ptr());
  return 0;
}

int Clear(PyObject* self) {
  PyScheduler* const scheduler = ValueOf<PyScheduler>(self);
  if (scheduler == nullptr) return 0;
  scheduler->last.reset();
  scheduler->built.Clear();
  return 0;
}

}  // namespace

void BindScheduler(py::module_& m) {
  ForkGeneration();
  const py::custom_type_setup collected([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->ht_type.tp_traverse = &Traverse;
    type->ht_type.tp_clear = &Clear;
  });
  py::class_<PyScheduler> scheduler(m, "Scheduler", collected,
                                    "The endpoint picker's scheduler, without threads or sockets.");
  BindDecisions(m);
  BindMaking(scheduler);
  BindCalls(scheduler);
}

}  // namespace llmd::python
