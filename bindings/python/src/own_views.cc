#include "own_views.h"

#include <memory>
#include <numeric>

#include "bindings.h"
#include "endpoint.h"
#include "llmd/sched/profile_handler.h"
#include "llmd/sched/scheduler.h"

namespace llmd::python {
namespace {

using sched::RequestContext;

struct OwnRequest {
  std::string body;
  sched::HeaderList headers;
  RequestContext context;
};
struct OwnCandidates {
  sched::Snapshot snapshot;
  std::vector<uint32_t> indexes;
  RequestContext context;  // holds the data
  std::map<std::string, sched::DataKey> keys;
};

RequestContext* g_taken = nullptr;  // of the call of Parse in progress; with the GIL held

// Parses as a scheduler does, and gives the request up before anything is decided.
class Taker final : public sched::ProfileHandler {
 public:
  void Schedule(RequestContext& request, sched::ProfileRunner&,
                sched::ScheduleOutcome& outcome) override {
    std::destroy_at(g_taken);  // what it may hold open is not assigned to
    std::construct_at(g_taken, std::move(request));
    outcome.error = "taken";
  }
};

StatusOr<std::unique_ptr<sched::Scheduler>> MakeReader() {
  sched::PluginRegistry registry = sched::BuiltinPlugins();
  LLMD_RETURN_IF_ERROR(sched::AddPlugin(
      registry, {.type = "taker",
                 .kind = "profile handler",
                 .help = "",
                 .make = [](sched::PluginArgs&) -> StatusOr<std::unique_ptr<sched::Plugin>> {
                   return std::unique_ptr<sched::Plugin>(std::make_unique<Taker>());
                 }}));
  sched::SchedulerOptions options;
  options.registry = &registry;
  return sched::Scheduler::FromYaml(
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
      "plugins: [{type: taker}, {type: queue-scorer}]\n",
      options);
}

// Made once: it costs as much as thousands of requests.
Status Parse(const sched::RequestSpec& spec, RequestContext* out) {
  static sched::Scheduler& reader = *Value(MakeReader()).release();
  g_taken = out;
  return reader.Schedule(spec, std::span<const sched::EndpointState>()).status();
}

std::vector<double> PerEndpoint(const py::handle& values, size_t n, const std::string& what) {
  std::vector<double> out;
  if (values.is_none()) return out;
  for (const py::handle value : values) out.push_back(value.cast<double>());
  if (out.size() != n)
    Raise(InvalidArgument(what + ": expected " + std::to_string(n) + " numbers, one an endpoint"));
  return out;
}

void FillFact(const std::string& type, const py::dict& given, size_t n, sched::Attribute& fact) {
  for (const auto& item : given) {
    const std::string key = py::str(item.first).cast<std::string>();
    const std::string what = "data['" + type + "']['" + key + "']";
    if (key == "total") {
      fact.total = item.second.cast<double>();
    } else if (key == "block_size") {
      fact.block_size = item.second.cast<double>();
    } else if (key == "per_endpoint") {
      fact.per_endpoint = PerEndpoint(item.second, n, what);
    } else if (key == "second") {
      fact.second = PerEndpoint(item.second, n, what);
    } else if (key == "tokens") {
      for (const py::handle token : item.second) fact.tokens.push_back(token.cast<uint32_t>());
    } else if (key == "exact") {
      fact.exact = item.second.cast<bool>();
    } else if (key == "text") {
      fact.text = item.second.cast<std::string>();
    } else {
      Raise(InvalidArgument(what + ": known are total, block_size, per_endpoint, second, tokens, "
                                   "exact and text"));
    }
  }
}

void FillSnapshot(const std::vector<PyEndpoint*>& endpoints, const std::vector<double>& stale,
                  sched::Snapshot& snapshot) {
  auto set = std::make_shared<sched::EndpointSet>();
  for (size_t i = 0; i < endpoints.size(); ++i) {
    set->Add(endpoints[i]->info, static_cast<uint32_t>(i));
    if (!stale.empty() && stale[i] != 0) {
      snapshot.AddStale(endpoints[i]->metrics);
    } else {
      snapshot.Add(std::make_shared<const sched::EndpointMetrics>(endpoints[i]->metrics));
    }
  }
  snapshot.set = std::move(set);
}

}  // namespace

sched::HeaderList LowerHeaders(const std::map<std::string, std::string>& headers) {
  sched::HeaderList out;
  for (const auto& [name, value] : headers)
    out.emplace_back(py::str(name).attr("lower")().cast<std::string>(), value);
  return out;
}

RequestView MakeRequest(const py::object& body, const std::string& path,
                        const std::map<std::string, std::string>& headers, std::string request_id,
                        int priority, std::string objective, std::string fairness_id,
                        uint64_t seed) {
  auto own = std::make_shared<OwnRequest>();
  BodyText(body, own->body);
  sched::RequestSpec spec;
  spec.body = own->body;
  spec.path = path;
  spec.headers = own->headers = LowerHeaders(headers);
  spec.request_id = std::move(request_id);
  spec.priority = priority;
  Check(Parse(spec, &own->context));
  RequestContext& context = own->context;
  // What pointed into `spec` points here from now on, at the same places.
  const size_t prompt = context.prompt_json.empty()
                            ? 0
                            : static_cast<size_t>(context.prompt_json.data() - spec.body.data());
  context.prompt_json = std::string_view(own->body).substr(prompt, context.prompt_json.size());
  context.body = own->body;
  context.headers = &own->headers;
  context.objective = std::move(objective);
  context.fairness_id = std::move(fairness_id);
  context.random = seed;
  auto scope = std::make_shared<ViewScope>();
  scope->request = &own->context;
  scope->owned = std::move(own);
  return {std::move(scope)};
}

std::string PathOfBody(const std::string& body) {
  RequestContext context;
  sched::RequestSpec spec;
  spec.body = body;
  Check(Parse(spec, &context));
  return context.path;
}

CandidatesView MakeCandidates(const py::object& endpoints, const py::object& stale,
                              const py::dict& data) {
  auto own = std::make_shared<OwnCandidates>();
  const std::vector<PyEndpoint*> given = EndpointsOf(endpoints);
  FillSnapshot(given, PerEndpoint(stale, given.size(), "stale"), own->snapshot);
  own->indexes.resize(given.size());
  std::iota(own->indexes.begin(), own->indexes.end(), 0);
  for (const auto& item : data) {
    const std::string type = py::str(item.first).cast<std::string>();
    const auto key = static_cast<sched::DataKey>(own->keys.size());
    own->keys[type] = key;
    FillFact(type, item.second.cast<py::dict>(), given.size(), own->context.Put(key));
  }
  auto scope = std::make_shared<ViewScope>();
  scope->request = &own->context;
  scope->snapshot = &own->snapshot;
  scope->candidates = own->indexes;
  scope->data = &own->keys;
  scope->owned = std::move(own);
  return {std::move(scope)};
}

}  // namespace llmd::python
