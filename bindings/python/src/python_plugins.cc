#include "python_plugins.h"

#include <pybind11/numpy.h>

#include <stdexcept>

#include "bindings.h"
#include "llmd/sched/filter.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/scorer.h"
#include "plugin_views.h"

namespace llmd::python {
namespace {

using sched::PluginArgs;
using sched::RequestContext;
using sched::Snapshot;

thread_local PluginCall* g_current = nullptr;

std::string Text(const py::error_already_set& error) {
  return py::str(error.type().attr("__name__")).cast<std::string>() + ": " +
         py::str(error.value()).cast<std::string>();
}

std::string Shape(const py::array& array) {
  return py::str(array.attr("shape")).cast<std::string>() + " " +
         py::str(array.dtype()).cast<std::string>();
}

// A one-dimensional array whose dtype kind is one of `kinds`; `want` says so in the error.
py::array Vector(const py::object& result, std::string_view kinds, const std::string& want) {
  py::array array = py::array::ensure(result);
  if (!array) {
    PyErr_Clear();
    throw std::runtime_error("it returned " + py::repr(py::type::of(result)).cast<std::string>() +
                             ", expected " + want);
  }
  if (array.ndim() != 1 || kinds.find(array.dtype().kind()) == std::string_view::npos)
    throw std::runtime_error("it returned " + Shape(array) + ", expected " + want);
  return array;
}
py::array VectorOf(const py::object& result, size_t n, std::string_view kinds, const char* what) {
  const std::string want = "(" + std::to_string(n) + ",) " + what;
  py::array array = Vector(result, kinds, want);
  if (array.shape(0) != static_cast<py::ssize_t>(n))
    throw std::runtime_error("it returned " + Shape(array) + ", expected " + want);
  return array;
}

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <typename T>
Array<T> As(const py::array& array) {
  return Array<T>(array);
}

// A Python callable, its keyword arguments and the data it reads.
class Callable {
 public:
  Callable(std::string name, py::object call)
      : name_(std::move(name)), held_(std::make_shared<PythonCall>()) {
    held_->call = std::move(call);
  }
  ~Callable() {
    const py::gil_scoped_acquire gil;
    held_.reset();
  }
  Callable(const Callable&) = delete;
  Callable& operator=(const Callable&) = delete;

  // Takes the parameters: a class is made with them, a function called with them. `positional` is
  // how many arguments a call passes besides.
  void Bind(const py::dict& parameters, int positional) {
    py::object& call = held_->call;
    if (PyType_Check(call.ptr()) != 0) {
      call = call(**parameters);
    } else {
      CheckSignature(parameters, positional);
      held_->kwargs = parameters;
    }
    if (PyCallable_Check(call.ptr()) == 0)
      throw py::type_error("its objects are not callable: the class lacks __call__");
  }
  void Consume(sched::PluginEnv& env) {
    if (!Has("consumes")) return;
    for (const py::handle item : held_->call.attr("consumes")) {
      const std::string key = item.cast<std::string>();
      const size_t slash = key.find('/');
      const std::string producer = slash == std::string::npos ? "" : key.substr(slash + 1);
      data_[key] = env.Consume(key.substr(0, slash), producer, true);
    }
  }

  // Runs `use(result)` on what the callable returns. With the GIL not held; throws what it raises
  // as std::runtime_error.
  template <typename Use>
  void Run(RequestContext& request, const Snapshot& snapshot, std::span<const uint32_t> candidates,
           const std::span<const double>* totals, const Use& use) const {
    InScope(
        [&] { return ViewScope{&request, &snapshot, candidates, &data_}; },
        [&](const auto& scope) {
          py::object r = py::cast(RequestView{scope}), c = py::cast(CandidatesView{scope});
          if (totals == nullptr) {
            use(held_->call(r, c, **held_->kwargs));
          } else {
            use(held_->call(
                r, c, py::array_t<double>(static_cast<py::ssize_t>(totals->size()), totals->data()),
                **held_->kwargs));
          }
        });
  }

  bool Has(const char* method) const { return py::hasattr(held_->call, method); }
  const std::shared_ptr<PythonCall>& held() const { return held_; }
  // Calls the method, if there is one, with the request and what `arguments()` makes.
  template <typename Arguments>
  void Tell(const char* method, RequestContext& request, const Arguments& arguments) const {
    InScope([&] { return ViewScope{&request}; },
            [&](const auto& scope) {
              if (!Has(method)) return;
              held_->call.attr(method)(py::cast(RequestView{scope}), *py::tuple(arguments()));
            });
  }

 private:
  // With the GIL not held: takes it and runs `body(scope)` on what `views()` makes, which ends with
  // it.
  template <typename Views, typename Body>
  void InScope(const Views& views, const Body& body) const {
    const py::gil_scoped_acquire gil;
    const auto scope = std::make_shared<ViewScope>(views());
    struct Closer {
      ViewScope& scope;
      ~Closer() { scope.request = nullptr; }
    } closer{*scope};
    std::string text;
    try {
      body(scope);
      return;
    } catch (const py::error_already_set& error) {
      text = Text(error);
      Note(text, error.value());
    } catch (const std::runtime_error& error) {
      text = error.what();
      Note(text, {});
    }
    throw std::runtime_error(text);
  }

  void Note(const std::string& text, const py::object& raised) const {
    if (PluginCall* call = PluginCall::Current()) call->Note(name_, text, raised);
  }

  void CheckSignature(const py::dict& parameters, int positional) const {
    const py::module_ inspect = py::module_::import("inspect");
    py::object signature;
    try {
      signature = inspect.attr("signature")(held_->call);
    } catch (const py::error_already_set& error) {
      if (error.matches(PyExc_ValueError)) return;  // a builtin that tells nothing of itself
      throw;
    }
    py::list arguments;
    for (int i = 0; i < positional; ++i) arguments.append(py::none());
    signature.attr("bind")(*arguments, **parameters);
  }

  const std::string name_;
  std::shared_ptr<PythonCall> held_;
  std::map<std::string, sched::DataKey> data_;
};

class PyScorer : public sched::Scorer {
 public:
  static constexpr int kArguments = 2;
  explicit PyScorer(std::unique_ptr<Callable> callable) : callable_(std::move(callable)) {}
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    callable_->Run(request, snapshot, candidates, nullptr, [&](const py::object& result) {
      const auto values = As<double>(VectorOf(result, scores.size(), "fiu", "numbers"));
      std::copy_n(values.data(), scores.size(), scores.begin());
    });
  }

 private:
 protected:
  const std::unique_ptr<Callable> callable_;
};

class PyFilter : public sched::Filter {
 public:
  static constexpr int kArguments = 2;
  explicit PyFilter(std::unique_ptr<Callable> callable) : callable_(std::move(callable)) {}
  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    callable_->Run(request, snapshot, candidates, nullptr, [&](const py::object& result) {
      const auto keep = As<bool>(VectorOf(result, candidates.size(), "b", "bool"));
      size_t kept = 0;
      for (size_t i = 0; i < candidates.size(); ++i) {
        if (keep.data()[i]) candidates[kept++] = candidates[i];
      }
      candidates.resize(kept);
    });
  }

 private:
 protected:
  const std::unique_ptr<Callable> callable_;
};

class PyPicker : public sched::Picker {
 public:
  static constexpr int kArguments = 3;
  explicit PyPicker(std::unique_ptr<Callable> callable) : callable_(std::move(callable)) {}
  int Pick(RequestContext& request, const Snapshot& snapshot, std::span<const uint32_t> candidates,
           std::span<const double> totals, std::vector<uint32_t>& picked) override {
    callable_->Run(request, snapshot, candidates, &totals, [&](const py::object& result) {
      const auto positions = As<int64_t>(Vector(
          result, "iu", "1 to " + std::to_string(candidates.size()) + " positions, integers"));
      if (positions.size() == 0) throw std::runtime_error("it picked nothing");
      for (py::ssize_t i = 0; i < positions.size(); ++i)
        picked.push_back(candidates[Checked(positions, i, candidates.size())]);
    });
    return 0;
  }

 private:
  template <typename Array>
  static size_t Checked(const Array& positions, py::ssize_t i, size_t n) {
    const int64_t position = positions.data()[i];
    if (position < 0 || position >= static_cast<int64_t>(n)) {
      throw std::runtime_error("it picked position " + std::to_string(position) + " of " +
                               std::to_string(n) + " candidates");
    }
    for (py::ssize_t j = 0; j < i; ++j) {
      if (positions.data()[j] == position)
        throw std::runtime_error("it picked position " + std::to_string(position) + " twice");
    }
    return static_cast<size_t>(position);
  }

 protected:
  const std::unique_ptr<Callable> callable_;
};

py::object OrNone(std::string_view text) {
  return text.empty() ? py::object(py::none()) : py::str(std::string(text));
}
py::object OrNone(int64_t number) {
  return number < 0 ? py::object(py::none()) : py::int_(number);
}

constexpr const char *kOnRouted = "on_routed", *kOnFirstToken = "on_first_token",
                     *kOnEnd = "on_end";

// A plugin whose object wants to know how its requests fare.
template <typename Kind>
class Told final : public Kind, public sched::PreRequestHook, public sched::ResponseHook {
 public:
  using Kind::Kind;
  void PreRequest(RequestContext& request, const Snapshot& snapshot,
                  const sched::ScheduleOutcome& outcome, sched::HeaderList&) override {
    const auto name = [&](const std::vector<uint32_t>& chosen) {
      return OrNone(chosen.empty() ? std::string_view() : snapshot.set->names[chosen[0]]);
    };
    this->callable_->Tell(kOnRouted, request, [&] {
      return py::make_tuple(name(outcome.primary), name(outcome.prefill));
    });
  }
  void OnFirstChunk(RequestContext& request, const sched::ResponseInfo& response) override {
    this->callable_->Tell(kOnFirstToken, request, [&] { return py::make_tuple(NameOf(response)); });
  }
  void OnEnd(RequestContext& request, const sched::ResponseInfo& response) override {
    this->callable_->Tell(kOnEnd, request, [&] {
      py::dict usage;
      usage["prompt_tokens"] = OrNone(response.usage.prompt_tokens);
      usage["completion_tokens"] = OrNone(response.usage.completion_tokens);
      usage["cached_tokens"] = OrNone(response.usage.cached_tokens);
      usage["aborted"] = response.aborted;
      return py::make_tuple(NameOf(response), usage);
    });
  }

 private:
  static py::object NameOf(const sched::ResponseInfo& response) {
    return OrNone(response.endpoint == nullptr ? "" : response.endpoint->FullName());
  }
};

py::dict ParametersOf(const PluginArgs& args) {
  if (args.parameters.IsNull()) return {};
  return py::module_::import("json").attr("loads")(args.parameters.ToJson().Dump());
}

template <typename Kind>
StatusOr<std::unique_ptr<sched::Plugin>> Make(PluginArgs& args, const py::object& given,
                                              BuiltPlugins& built) {
  if (!args.parameters.IsNull() && !args.parameters.IsMap())
    return args.parameters.Error("expected a map of parameters");
  const auto failed = [&](const std::string& what) {
    return args.parameters.Error("Python plugin '" + args.name + "': " + what);
  };
  try {
    auto callable = std::make_unique<Callable>(args.name, given);
    callable->Bind(ParametersOf(args), Kind::kArguments);
    callable->Consume(args.env);
    built.calls.push_back(callable->held());
    if (callable->Has(kOnRouted) || callable->Has(kOnFirstToken) || callable->Has(kOnEnd))
      return std::unique_ptr<sched::Plugin>(std::make_unique<Told<Kind>>(std::move(callable)));
    return std::unique_ptr<sched::Plugin>(std::make_unique<Kind>(std::move(callable)));
  } catch (const py::error_already_set& error) {
    return failed(Text(error));
  } catch (const std::exception& error) {
    return failed(error.what());
  }
}

std::string HelpOf(const py::object& given) {
  const py::object doc = given.attr("__doc__");
  if (doc.is_none()) return "A Python callable.";
  const std::string text = py::str(doc).cast<std::string>();
  return text.substr(0, text.find('\n'));
}

template <typename Kind>
Status Add(sched::PluginRegistry& registry, const py::dict& plugins, const std::string& kind,
           BuiltPlugins* built) {
  for (const auto& item : plugins) {
    const std::string type = py::str(item.first).cast<std::string>();
    const auto given = py::reinterpret_borrow<py::object>(item.second);
    if (PyCallable_Check(given.ptr()) == 0)
      return InvalidArgument(kind + "s['" + type + "'] is not callable");
    sched::PluginDescriptor descriptor;
    descriptor.type = type;
    descriptor.kind = kind;
    descriptor.help = HelpOf(given);
    // The registry may outlive the making: what it holds is shown to the garbage collector too.
    const auto held = std::make_shared<PythonCall>();
    held->call = given;
    built->calls.push_back(held);
    descriptor.make = [held, built](PluginArgs& args) {
      const py::gil_scoped_acquire gil;
      built->types.insert(args.type);
      return Make<Kind>(args, held->call, *built);
    };
    LLMD_RETURN_IF_ERROR(AddPlugin(registry, std::move(descriptor)));
  }
  return OkStatus();
}

}  // namespace

int BuiltPlugins::Visit(visitproc visit, void* arg) const {
  for (const auto& held : calls) {
    Py_VISIT(held->call.ptr());
    Py_VISIT(held->kwargs.ptr());
  }
  return 0;
}

void BuiltPlugins::Clear() {
  for (const auto& held : calls) {
    const py::object call = std::exchange(held->call, py::none());
    const py::dict kwargs = std::exchange(held->kwargs, py::dict());
  }
}

Status AddPythonPlugins(sched::PluginRegistry& registry, const py::dict& scorers,
                        const py::dict& filters, const py::dict& pickers, BuiltPlugins* built) {
  LLMD_RETURN_IF_ERROR(Add<PyScorer>(registry, scorers, "scorer", built));
  LLMD_RETURN_IF_ERROR(Add<PyFilter>(registry, filters, "filter", built));
  return Add<PyPicker>(registry, pickers, "picker", built);
}

PluginCall::PluginCall(const void* scheduler, const char* what)
    : scheduler_(scheduler), outer_(g_current) {
  for (const PluginCall* call = outer_; call != nullptr; call = call->outer_) {
    if (call->scheduler_ == scheduler)
      Raise(FailedPrecondition("a plugin called the " + std::string(what) + " that is calling it"));
  }
  g_current = this;
}

void PluginCall::Note(const std::string& plugin, const std::string& text,
                      const py::object& raised) {
  if (!failure.empty()) return;
  failure = "plugin '" + plugin + "' failed: " + text;
  exception = raised;
}

PluginCall::~PluginCall() {
  g_current = outer_;
}

PluginCall* PluginCall::Current() {
  return g_current;
}

void PluginCall::Rethrow(const Status& status, const py::object& exception) {
  if (!exception) Raise(status);
  if (PyErr_GivenExceptionMatches(exception.ptr(), PyExc_Exception) == 0) {
    PyErr_SetObject(py::type::of(exception).ptr(), exception.ptr());
    throw py::error_already_set();
  }
  try {
    Raise(status);
  } catch (py::error_already_set& error) {
    PyException_SetCause(error.value().ptr(), exception.inc_ref().ptr());
    error.restore();
  }
  throw py::error_already_set();
}

}  // namespace llmd::python
