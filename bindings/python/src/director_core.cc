#include "director_core.h"

#include <optional>

namespace llmd::python {
namespace {

thread_local Answers* g_answers = nullptr;  // of the innermost call

// Collects the answers of its scope.
class Collecting {
 public:
  explicit Collecting(Answers& answers) : outer_(std::exchange(g_answers, &answers)) {}
  ~Collecting() { g_answers = outer_; }
  Collecting(const Collecting&) = delete;
  Collecting& operator=(const Collecting&) = delete;

 private:
  Answers* const outer_;
};

struct Failure {
  std::string text;
  py::object exception;
};

// Whom to tell of it, and what.
std::pair<py::object, py::object> CallbackOf(const std::shared_ptr<DirectorCore>& core,
                                             Answer& answer) {
  Asked& asked = *answer.asked;
  if (!answer.evicted) return {std::exchange(asked.on_answer, py::none()), asked.routing};
  if (const auto routed = asked.answered.lock()) core->End(std::move(routed->routing.state));
  return {std::exchange(asked.on_evicted, py::none()),
          py::cast(MakeRouting(core, std::move(answer.routing)))};
}

// Tells everybody; the first that raises counts when `raises`.
std::optional<py::error_already_set> Tell(const std::shared_ptr<DirectorCore>& core,
                                          Answers& answers, bool raises) {
  for (auto& [asked, routing, evicted] : answers) {
    if (evicted) continue;
    --core->waiting;
    asked->state.reset();  // the routing has it
    auto made = MakeRouting(core, std::move(routing));
    asked->answered = made;
    asked->routing = py::cast(std::move(made));
  }
  std::optional<py::error_already_set> first;
  for (Answer& answer : answers) {
    const auto [callback, what] = CallbackOf(core, answer);
    if (callback.is_none()) continue;
    try {
      callback(what);
    } catch (py::error_already_set& error) {
      if (raises && !first)
        first.emplace(std::move(error));
      else
        error.discard_as_unraisable(callback);
    }
  }
  return first;
}

class Counted {
 public:
  explicit Counted(int& count) : count_(++count) {}
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  int& count_;
};

// One object for all directors: what a decision works with belongs to the thread.
const char kAnyDirector = 0;

}  // namespace

Asked::~Asked() {
  const py::gil_scoped_acquire gil;
  on_answer = py::object();
  on_evicted = py::object();
  routing = py::object();
}

DirectorCore::~DirectorCore() {
  Answers untold;
  const Collecting collecting(untold);
  const py::gil_scoped_release release;
  dropped.clear();
  director.reset();
  for (Answer& answer : untold) {
    answer.routing.Clear();
    answer.asked->state.reset();
  }
}

void DirectorCore::Answered(const std::shared_ptr<Asked>& asked, sched::Routing routing) {
  if (g_answers != nullptr) g_answers->push_back({asked, std::move(routing)});
}

void DirectorCore::Evicted(const std::shared_ptr<Asked>& asked, const sched::Denial& denial) {
  if (g_answers == nullptr) return;
  Answer& answer = g_answers->emplace_back(asked, sched::Routing(), /*evicted=*/true);
  answer.routing.denial = denial;
}

bool DirectorCore::Run(const std::function<void(sched::Director&)>& work) {
  const std::shared_ptr<DirectorCore> self = shared_from_this();
  const Counted in_progress(calls);
  Answers answers;
  Failure failure;
  {
    Call call(callee, &kAnyDirector);
    const auto run = [&](const auto& what) {
      const Collecting collecting(answers);
      const py::gil_scoped_release release;
      what();
    };
    run([&] { work(*director); });
    while (!dropped.empty()) {
      auto ended = std::exchange(dropped, {});
      run([&] {
        for (const auto& state : ended) director->Cancel(state);
        ended.clear();
      });
    }
    failure = {call.plugins().failure, call.plugins().exception};
  }
  std::optional<py::error_already_set> error = Tell(self, answers, failure.text.empty());
  if (!failure.text.empty()) PluginCall::Rethrow(Internal(failure.text), failure.exception);
  if (error) throw py::error_already_set(std::move(*error));
  return !answers.empty();
}

void DirectorCore::FollowMembers() {
  handles.clear();
  for (sched::EndpointHandle& one : director->Members()) {
    handles[one.name] = one.id;
    known.insert(one.name);
    names[one.id] = std::move(one.name);
  }
}

void DirectorCore::End(std::shared_ptr<sched::RequestState> state) noexcept {
  if (state == nullptr) return;
  dropped.push_back(std::move(state));
  if (PluginCall::Current() != nullptr) return;
  const py::error_scope kept;
  try {
    Run([](sched::Director&) {});
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("llmd.Director");
  }
}

PyRouting::~PyRouting() {
  core->End(std::move(routing.state));
}

std::shared_ptr<PyRouting> MakeRouting(const std::shared_ptr<DirectorCore>& core,
                                       sched::Routing routing) {
  auto out = std::make_shared<PyRouting>();
  out->core = core;
  out->routing = std::move(routing);
  const sched::Routing& r = out->routing;
  if (!r.ok) out->routing.state.reset();
  const auto name_of = [&](sched::EndpointId id, const std::string& address) {
    auto name = core->names.find(id);
    if (name == core->names.end()) {  // they are just being set, by another thread
      core->FollowMembers();
      name = core->names.find(id);
    }
    return name == core->names.end() ? address : name->second;
  };
  for (size_t i = 0; i < r.handles.size(); ++i)
    out->names.push_back(name_of(r.handles[i], r.endpoints[i]));
  for (const auto& [key, value] : r.set_headers) {
    if (key == "x-prefiller-host-port") out->prefill = name_of(r.prefill, value);
  }
  return out;
}

}  // namespace llmd::python
