#include "plugin_views.h"

#include <pybind11/stl.h>

#include "bindings.h"
#include "own_views.h"

namespace llmd::python {
namespace {

using sched::Attribute;
using sched::RequestContext;
using sched::Snapshot;

const RequestContext& Of(const RequestView& view) {
  view.scope->RequireOpen();
  return *view.scope->request;
}

std::string_view ApiName(sched::Api api) {
  switch (api) {
    case sched::Api::kCompletions:
      return "completions";
    case sched::Api::kChat:
      return "chat";
    case sched::Api::kEmbeddings:
      return "embeddings";
    case sched::Api::kResponses:
      return "responses";
    case sched::Api::kMessages:
      return "messages";
    case sched::Api::kGenerate:
      return "generate";
    case sched::Api::kImages:
      return "images";
    case sched::Api::kConversations:
      return "conversations";
    case sched::Api::kNone:
      break;
  }
  return "none";
}

std::map<std::string, std::string> Headers(const RequestView& view) {
  std::map<std::string, std::string> out;
  const RequestContext& request = Of(view);
  if (request.headers == nullptr) return out;
  for (const auto& [name, value] : *request.headers) out.insert_or_assign(name, value);
  return out;
}

// value(index of the endpoint) for every candidate.
template <typename T, typename Value>
py::array_t<T> Column(const CandidatesView& view, const Value& value) {
  view.scope->RequireOpen();
  const std::span<const uint32_t> candidates = view.scope->candidates;
  py::array_t<T> out(static_cast<py::ssize_t>(candidates.size()));
  T* data = out.mutable_data();
  for (size_t i = 0; i < candidates.size(); ++i) data[i] = value(candidates[i]);
  return out;
}

// `make()` the first time that the call asks for `name`.
template <typename Make>
py::object Once(const CandidatesView& view, const char* name, const Make& make) {
  view.scope->RequireOpen();
  py::dict& made = view.scope->columns;
  if (!made.contains(name)) made[name] = make();
  return made[name];
}

py::object Gauge(const CandidatesView& view, const char* name,
                 std::vector<double> Snapshot::* gauge) {
  return Once(view, name, [&] {
    const std::vector<double>& values = view.scope->snapshot->*gauge;
    return Column<double>(view, [&](uint32_t c) { return values[c]; });
  });
}

py::object CacheNumber(const CandidatesView& view, const char* name,
                       int sched::EndpointMetrics::* number) {
  return Once(view, name, [&] {
    return Column<int64_t>(view,
                           [&](uint32_t c) { return (*view.scope->snapshot->metrics[c]).*number; });
  });
}

py::object Stale(const CandidatesView& view) {
  return Once(view, "stale", [&] {
    const auto& stale = view.scope->snapshot->stale;
    return Column<bool>(view, [&](uint32_t c) { return stale[c] != 0; });
  });
}

py::object Names(const CandidatesView& view) {
  return Once(view, "names", [&] {
    py::list out;
    for (uint32_t c : view.scope->candidates)
      out.append(py::str(view.scope->snapshot->set->names[c]));
    return out;
  });
}

py::list Adapters(const CandidatesView& view,
                  std::vector<std::string> sched::EndpointMetrics::* list) {
  view.scope->RequireOpen();
  py::list out;
  for (uint32_t c : view.scope->candidates)
    out.append(py::cast((*view.scope->snapshot->metrics[c]).*list));
  return out;
}

py::list Label(const CandidatesView& view, const std::string& key) {
  view.scope->RequireOpen();
  py::list out;
  for (uint32_t c : view.scope->candidates) {
    const auto& labels = view.scope->snapshot->info(c).labels;
    const auto it = labels.find(key);
    out.append(it == labels.end() ? py::object(py::none()) : py::object(py::str(it->second)));
  }
  return out;
}

py::object PerCandidate(const CandidatesView& view, const std::vector<double>& values) {
  if (values.size() != view.scope->snapshot->size()) return py::none();
  return Column<double>(view, [&](uint32_t c) { return values[c]; });
}

py::object Data(const CandidatesView& view, const std::string& type) {
  view.scope->RequireOpen();
  const auto key = view.scope->data->find(type);
  if (key == view.scope->data->end()) {
    Raise(NotFound("the plugin does not declare '" + type + "' in its attribute consumes"));
  }
  const Attribute* fact = view.scope->request->Get(key->second);
  if (fact == nullptr) return py::none();
  py::dict out;
  out["total"] = fact->total;
  out["block_size"] = fact->block_size;
  out["per_endpoint"] = PerCandidate(view, fact->per_endpoint);
  out["second"] = PerCandidate(view, fact->second);
  out["tokens"] =
      py::array_t<uint32_t>(static_cast<py::ssize_t>(fact->tokens.size()), fact->tokens.data());
  out["exact"] = fact->exact;
  out["text"] = fact->text;
  return out;
}

void BindRequest(py::module_& m) {
  py::class_<RequestView>(m, "Request",
                          "The request a Python plugin decides on. Ends with the call: kept "
                          "longer, every read raises llmd.Error (FAILED_PRECONDITION). One made "
                          "by itself, for tests of plugins, stays.")
      .def(py::init(&MakeRequest), py::arg("body"), py::kw_only(), py::arg("path") = "",
           py::arg("headers") = std::map<std::string, std::string>(),
           py::arg("request_id") = "test", py::arg("priority") = 0, py::arg("objective") = "",
           py::arg("fairness_id") = "", py::arg("seed") = 1,
           "An OpenAI body, as Scheduler.schedule takes it; seed: of random().")
      .def("__repr__",
           [](const RequestView& v) {
             if (v.scope->request == nullptr) return std::string("<llmd.Request, ended>");
             return "<llmd.Request " + Repr(py::str(v.scope->request->request_id)) + " " +
                    v.scope->request->path + ", model " + Repr(py::str(v.scope->request->model)) +
                    ">";
           })
      .def_property_readonly(
          "decision_id", [](const RequestView& v) { return Of(v).id; },
          "Decision.id of what is being decided.")
      .def_property_readonly("request_id", [](const RequestView& v) { return Of(v).request_id; })
      .def_property_readonly(
          "model", [](const RequestView& v) { return Of(v).model; }, "As the client wrote it.")
      .def_property_readonly(
          "target_model", [](const RequestView& v) { return Of(v).target_model; }, "After rewrite.")
      .def_property_readonly("path", [](const RequestView& v) { return Of(v).path; })
      .def_property_readonly(
          "api", [](const RequestView& v) { return py::str(std::string(ApiName(Of(v).api))); },
          "completions, chat, embeddings, responses, messages, generate, images or none.")
      .def_property_readonly("headers", &Headers, "Lower-case name -> last value; a copy.")
      .def_property_readonly(
          "body", [](const RequestView& v) { return py::bytes(std::string(Of(v).body)); },
          "The whole body; a copy.")
      .def_property_readonly(
          "prompt_json",
          [](const RequestView& v) { return py::bytes(std::string(Of(v).prompt_json)); },
          "The prompt or messages as they stand in the body; a copy.")
      .def_property_readonly(
          "prompt_bytes", [](const RequestView& v) { return Of(v).prompt_json.size(); },
          "len(prompt_json), without the copy.")
      .def_property_readonly("streaming", [](const RequestView& v) { return Of(v).streaming; })
      .def_property_readonly(
          "max_tokens",
          [](const RequestView& v) -> py::object {
            if (Of(v).max_tokens < 0) return py::none();
            return py::int_(Of(v).max_tokens);
          },
          "None when the body does not say.")
      .def_property_readonly("priority", [](const RequestView& v) { return Of(v).priority; })
      .def_property_readonly("objective", [](const RequestView& v) { return Of(v).objective; })
      .def_property_readonly("fairness_id", [](const RequestView& v) { return Of(v).fairness_id; })
      .def(
          "random",
          [](RequestView& v) {
            v.scope->RequireOpen();
            return sched::RandomUnit(v.scope->request->random);
          },
          "The next number in (0, 1) of this decision's own generator: the same for the same seed "
          "and calls.");
}

void BindCandidates(py::module_& m) {
  py::class_<CandidatesView>(m, "Candidates",
                             "The endpoints to choose from, as columns of length n. Ends with the "
                             "call; arrays taken from it are copies and stay. One made by itself, "
                             "for tests of plugins, stays.")
      .def(py::init(&MakeCandidates), py::arg("endpoints"), py::kw_only(),
           py::arg("stale") = py::none(), py::arg("data") = py::dict(),
           "stale: bool [n], whose gauges then are NaN; data: type -> what data() shall give, as "
           "a dict of total, block_size, per_endpoint, second, tokens, exact, text.")
      .def("__len__",
           [](const CandidatesView& v) {
             v.scope->RequireOpen();
             return v.scope->candidates.size();
           })
      .def_property_readonly("names", &Names, "namespace/name, length n.")
      .def_property_readonly(
          "waiting",
          [](const CandidatesView& v) { return Gauge(v, "waiting", &Snapshot::waiting); },
          "Requests waiting, float64 [n]; NaN = unknown.")
      .def_property_readonly(
          "running",
          [](const CandidatesView& v) { return Gauge(v, "running", &Snapshot::running); },
          "Requests running, float64 [n]; NaN = unknown.")
      .def_property_readonly(
          "kv_usage",
          [](const CandidatesView& v) { return Gauge(v, "kv_usage", &Snapshot::kv_usage); },
          "Share of KV blocks in use, 0..1, float64 [n]; NaN = unknown.")
      .def_property_readonly(
          "block_size",
          [](const CandidatesView& v) {
            return CacheNumber(v, "block_size", &sched::EndpointMetrics::block_size);
          },
          "Tokens a KV block, int64 [n]; 0 = not reported.")
      .def_property_readonly(
          "num_blocks",
          [](const CandidatesView& v) {
            return CacheNumber(v, "num_blocks", &sched::EndpointMetrics::num_blocks);
          },
          "KV blocks in all, int64 [n]; 0 = not reported.")
      .def_property_readonly("stale", &Stale, "Not heard of for too long, bool [n].")
      .def_property_readonly(
          "active_models",
          [](const CandidatesView& v) {
            return Adapters(v, &sched::EndpointMetrics::active_models);
          },
          "LoRA adapters loaded, a list of names for each, length n.")
      .def_property_readonly(
          "waiting_models",
          [](const CandidatesView& v) {
            return Adapters(v, &sched::EndpointMetrics::waiting_models);
          },
          "LoRA adapters waited for, a list of names for each, length n.")
      .def_property_readonly(
          "max_active_models",
          [](const CandidatesView& v) {
            return CacheNumber(v, "max_active_models", &sched::EndpointMetrics::max_active_models);
          },
          "LoRA adapters that fit, int64 [n].")
      .def("__repr__",
           [](const CandidatesView& v) {
             if (v.scope->request == nullptr) return std::string("<llmd.Candidates, ended>");
             return "<llmd.Candidates " + Repr(Names(v)) + ">";
           })
      .def("label", &Label, py::arg("key"), "The label's value or None, length n.")
      .def("data", &Data, py::arg("type"),
           "What a producer left under a data type that the plugin lists in its attribute "
           "`consumes`: total, block_size, per_endpoint and second (float64 [n] or None), tokens "
           "(uint32), exact, text; None when it left nothing. NotFoundError for other types.");
}

}  // namespace

void ViewScope::RequireOpen() const {
  if (request == nullptr)
    Raise(FailedPrecondition("this view ended with the call it was made for"));
}

void BindPluginViews(py::module_& m) {
  BindRequest(m);
  BindCandidates(m);
}

}  // namespace llmd::python
