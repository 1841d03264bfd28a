#include "call.h"

namespace llmd::python {
namespace {

Callee& Checked(Callee& callee) {
  if (callee.generation == ForkGeneration()) return callee;
  // Its lock is held by a thread that is not in this process.
  if (callee.calls > 0 && PluginCall::Current() == nullptr) {
    const std::string what = callee.what;
    Raise(FailedPrecondition("another thread was deciding with this " + what +
                             " when the process was forked: make a " + what +
                             " of its own in the child"));
  }
  callee.generation = ForkGeneration();
  return callee;
}

}  // namespace

Call::Call(Callee& callee, const void* object)
    : callee_(Checked(callee)), plugins_(object, callee.what) {
  ++callee_.calls;
}

Call::~Call() {
  --callee_.calls;
  DeliverLogs();
}

double SecondsOf(TimePoint time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

void AdvanceTo(FakeClock& clock, double seconds) {
  const double now = SecondsOf(clock.Now());
  if (!(seconds >= now) || seconds > 1e9)
    Raise(InvalidArgument("now=" + Repr(py::float_(seconds)) + ": expected " +
                          Repr(py::float_(now)) + " or later, in seconds"));
  const auto target = std::chrono::round<Duration>(std::chrono::duration<double>(seconds));
  clock.Advance(std::max(Duration(0), target - clock.Now().time_since_epoch()));
}

void RefusePath(const std::string& yaml, const std::string& taker, const std::string& instead) {
  if (yaml.empty() || yaml.find('\n') != std::string::npos || yaml.find(':') != std::string::npos)
    return;
  const bool named = yaml.ends_with(".yaml") || yaml.ends_with(".yml") || yaml.ends_with(".json") ||
                     yaml.find('/') != std::string::npos;
  if (named)
    Raise(InvalidArgument(taker + " takes a document's text, and '" + yaml +
                          "' looks like a file's name: use " + instead));
}

void RequireUsed(const std::set<std::string>& used, const py::dict& scorers,
                 const py::dict& filters, const py::dict& pickers) {
  for (const py::dict& plugins : {scorers, filters, pickers}) {
    for (const auto& item : plugins) {
      const std::string type = py::str(item.first).cast<std::string>();
      if (!used.contains(type))
        Raise(InvalidArgument("the configuration has no plugin of type '" + type +
                              "', which was given in Python"));
    }
  }
}

}  // namespace llmd::python
