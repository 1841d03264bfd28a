// A call into a scheduler or a director, and the clock that moves only when it is told to.
#pragma once

#include <pybind11/pybind11.h>

#include <set>
#include <string>

#include "bindings.h"
#include "fork_guard.h"
#include "llmd/clock.h"
#include "log_queue.h"
#include "python_plugins.h"

namespace llmd::python {

// What is called. Touched with the GIL held only.
struct Callee {
  const char* what;  // "scheduler", for messages
  int calls = 0;     // in progress
  int generation = ForkGeneration();
};

// From taking the arguments to handing out the result. Made and destroyed with the GIL held.
class Call {
 public:
  // `object` is what plugins must not call meanwhile. Throws llmd.Error (FAILED_PRECONDITION) where
  // they do, and in a child process whose parent was calling from another thread when it forked.
  Call(Callee& callee, const void* object);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  [[noreturn]] void Raise(const Status& status) { plugins_.Rethrow(status); }
  const PluginCall& plugins() const { return plugins_; }

 private:
  Callee& callee_;
  PluginCall plugins_;
};

double SecondsOf(TimePoint time);
// Moves the clock on to `seconds`. InvalidArgumentError when that is past, or beyond 1e9.
void AdvanceTo(FakeClock& clock, double seconds);
// InvalidArgumentError for one line that ends like a file's name: `taker` takes none, `instead`
// does.
void RefusePath(const std::string& yaml, const std::string& taker, const std::string& instead);
// InvalidArgumentError when a plugin that was given is not among the types a configuration uses.
void RequireUsed(const std::set<std::string>& used, const py::dict& scorers,
                 const py::dict& filters, const py::dict& pickers);

}  // namespace llmd::python
