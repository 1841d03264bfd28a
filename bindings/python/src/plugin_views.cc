#include "plugin_views.h"

#include <pybind11/stl.h>

#include "bindings.h"

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

py::array_t<double> Gauge(const CandidatesView& view, std::vector<double> Snapshot::* gauge) {
  view.scope->RequireOpen();
  const std::vector<double>& values = view.scope->snapshot->*gauge;
  return Column<double>(view, [&](uint32_t c) { return values[c]; });
}

py::array_t<int64_t> CacheNumber(const CandidatesView& view, int sched::EndpointMetrics::* number) {
  return Column<int64_t>(view,
                         [&](uint32_t c) { return (*view.scope->snapshot->metrics[c]).*number; });
}

std::vector<std::string> Names(const CandidatesView& view) {
  view.scope->RequireOpen();
  std::vector<std::string> out;
  for (uint32_t c : view.scope->candidates) out.push_back(view.scope->snapshot->set->names[c]);
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
                          "longer, every read raises llmd.Error (FAILED_PRECONDITION).")
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
                             "call; arrays taken from it are copies and stay.")
      .def("__len__",
           [](const CandidatesView& v) {
             v.scope->RequireOpen();
             return v.scope->candidates.size();
           })
      .def_property_readonly("names", &Names, "namespace/name, length n.")
      .def_property_readonly(
          "waiting", [](const CandidatesView& v) { return Gauge(v, &Snapshot::waiting); },
          "Requests waiting, float64 [n]; NaN = unknown.")
      .def_property_readonly(
          "running", [](const CandidatesView& v) { return Gauge(v, &Snapshot::running); },
          "Requests running, float64 [n]; NaN = unknown.")
      .def_property_readonly(
          "kv_usage", [](const CandidatesView& v) { return Gauge(v, &Snapshot::kv_usage); },
          "Share of KV blocks in use, 0..1, float64 [n]; NaN = unknown.")
      .def_property_readonly(
          "block_size",
          [](const CandidatesView& v) {
            return CacheNumber(v, &sched::EndpointMetrics::block_size);
          },
          "Tokens a KV block, int64 [n]; 0 = not reported.")
      .def_property_readonly(
          "num_blocks",
          [](const CandidatesView& v) {
            return CacheNumber(v, &sched::EndpointMetrics::num_blocks);
          },
          "KV blocks in all, int64 [n]; 0 = not reported.")
      .def_property_readonly(
          "stale",
          [](const CandidatesView& v) {
            v.scope->RequireOpen();
            const auto& stale = v.scope->snapshot->stale;
            return Column<bool>(v, [&](uint32_t c) { return stale[c] != 0; });
          },
          "Not heard of for too long, bool [n].")
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
