// llmd.Director: a director in virtual time, and the requests that it has an answer for or not yet.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "call.h"
#include "endpoint.h"
#include "llmd/sched/director.h"
#include "python_plugins.h"

namespace llmd::python {

struct PyRouting;

// A request that was asked. Its body and headers are read until it is answered.
struct Asked {
  std::string body;
  sched::HeaderList headers;
  std::vector<sched::EndpointId> exclude;
  // With the GIL held only, but for the call that asks; as what follows.
  std::shared_ptr<sched::RequestState> state;  // until the answer is told
  py::object on_answer = py::none();
  py::object on_evicted = py::none();
  py::object routing = py::none();    // the answer: llmd.Routing
  std::weak_ptr<PyRouting> answered;  // the same
  ~Asked();
};

// What came of a request during a call: its answer, or that it was taken back after it.
struct Answer {
  std::shared_ptr<Asked> asked;
  sched::Routing routing;
  bool evicted = false;
};
using Answers = std::vector<Answer>;  // in order

// Everything but `director` is touched with the GIL held only. Objects of requests keep it alive,
// so that nothing of a request outlives the director.
struct DirectorCore : std::enable_shared_from_this<DirectorCore> {
  FakeClock clock;
  BuiltPlugins built;  // outlives the registry
  std::shared_ptr<const sched::PluginRegistry> registry;
  MetricsRegistry metrics;
  std::unique_ptr<sched::Director> director;
  Callee callee{"director"};
  std::atomic<int64_t> waiting{0};                   // requests without an answer; from any thread
  std::map<std::string, PyEndpoint> given;           // the members as last told, by "ns/name"
  std::set<std::string> known;                       // names of all that were ever members
  std::map<std::string, sched::EndpointId> handles;  // of the members, by name
  // By handle: of the members and, while calls are in progress, of those that left meanwhile.
  std::map<sched::EndpointId, std::string> names;
  int calls = 0;  // in progress
  // Requests whose object went while a plugin ran: they end with the call in progress.
  std::vector<std::shared_ptr<sched::RequestState>> dropped;
  ~DirectorCore();

  // Runs work(director) without the GIL. Then calls on_answer of every request that was answered
  // meanwhile and on_evicted of those that were taken back, and raises what a plugin or else one of
  // those raised; the others' go to sys.unraisablehook. True when somebody was told.
  bool Run(const std::function<void(sched::Director&)>& work);
  // Learns who is a member now.
  void FollowMembers();
  // The request is given up; where nothing can be raised: all goes to sys.unraisablehook.
  void End(std::shared_ptr<sched::RequestState> state) noexcept;
  // What a request's callbacks are to call, from any call of this thread.
  static void Answered(const std::shared_ptr<Asked>& asked, sched::Routing routing);
  static void Evicted(const std::shared_ptr<Asked>& asked, const sched::Denial& denial);
};

// The answer to a request.
struct PyRouting {
  std::shared_ptr<DirectorCore> core;
  sched::Routing routing;          // `state` is gone once it has ended
  std::vector<std::string> names;  // of the endpoints, "ns/name"
  std::string prefill;             // "ns/name", "" = none
  bool begun = false;              // first_token was called
  ~PyRouting();
};
std::shared_ptr<PyRouting> MakeRouting(const std::shared_ptr<DirectorCore>& core,
                                       sched::Routing routing);

// A request that waits, for a place or for what producers have to find out.
struct PyPending {
  std::shared_ptr<DirectorCore> core;
  std::shared_ptr<Asked> asked;
};

}  // namespace llmd::python
