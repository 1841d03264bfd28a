#include "llmd/sched/testing/golden.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <vector>

#include "llmd/json.h"
#include "llmd/sched/scheduler.h"

namespace llmd::sched::testing {
namespace {

StatusOr<json::Value> Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("cannot read '" + path + "'");
  std::stringstream text;
  text << file.rdbuf();
  StatusOr<json::Value> value = json::Parse(text.str());
  if (!value.ok()) return value.status().WithContext(path);
  if (!value->is_array()) return InvalidArgument(path + ": expected a list of cases");
  return value;
}

Status CheckKeys(const json::Value& object, const std::set<std::string, std::less<>>& known,
                 const std::string& where) {
  if (!object.is_object()) return InvalidArgument(where + ": expected an object");
  for (const auto& [key, unused] : object.AsObject()) {
    if (known.contains(key)) continue;
    std::string all;
    for (const std::string& k : known) all += (all.empty() ? "" : ", ") + k;
    return InvalidArgument(where + ": unknown key '" + key + "'; known: " + all);
  }
  return OkStatus();
}

StatusOr<EndpointState> EndpointOf(const json::Value& v, const std::string& where) {
  LLMD_RETURN_IF_ERROR(CheckKeys(v,
                                 {"name", "address", "port", "labels", "waiting", "running",
                                  "kvUsage", "blockSize", "numBlocks"},
                                 where));
  EndpointState out;
  out.info.name = v["name"].AsString();
  if (out.info.name.empty()) return InvalidArgument(where + ": expected a name");
  const int64_t port = v["port"].AsInt(8000);
  if (port < 1 || port > 65535) return InvalidArgument(where + ": expected a port of 1 to 65535");
  out.info.port = static_cast<uint16_t>(port);
  out.info.address = v.Find("address") ? v["address"].AsString() : "127.0.0.1";
  for (const auto& [key, value] : v["labels"].AsObject()) out.info.labels[key] = value.AsString();
  const auto gauge = [&](const char* key) {  // null = unknown
    const json::Value* value = v.Find(key);
    return value == nullptr ? 0 : value->is_null() ? std::nan("") : value->AsDouble();
  };
  out.metrics.waiting = gauge("waiting");
  out.metrics.running = gauge("running");
  out.metrics.kv_usage = gauge("kvUsage");
  out.metrics.block_size = static_cast<int>(v["blockSize"].AsInt(16));
  out.metrics.num_blocks = static_cast<int>(v["numBlocks"].AsInt(0));
  out.metrics.ever = true;
  return out;
}

StatusOr<RequestSpec> RequestOf(const json::Value& v, const std::string& where) {
  LLMD_RETURN_IF_ERROR(CheckKeys(v, {"path", "headers", "priority", "body"}, where));
  RequestSpec out;
  if (v.Find("path")) out.path = v["path"].AsString();
  for (const auto& [key, value] : v["headers"].AsObject())
    out.headers.emplace_back(key, value.AsString());
  out.priority = static_cast<int>(v["priority"].AsInt());
  out.body = v["body"].Dump();
  return out;
}

StatusOr<json::Value> Decide(Scheduler& scheduler, const json::Value& c, const std::string& where) {
  LLMD_RETURN_IF_ERROR(CheckKeys(c, {"name", "endpoints", "request", "decision"}, where));
  std::vector<EndpointState> endpoints;
  for (const json::Value& e : c["endpoints"].AsArray()) {
    LLMD_ASSIGN_OR_RETURN(
        EndpointState state,
        EndpointOf(e, where + ": endpoints[" + std::to_string(endpoints.size()) + "]"));
    endpoints.push_back(std::move(state));
  }
  LLMD_ASSIGN_OR_RETURN(const RequestSpec request, RequestOf(c["request"], where + ": request"));
  const StatusOr<Decision> decision = scheduler.Schedule(request, endpoints);
  if (!decision.ok()) return decision.status().WithContext(where);
  return ToJson(decision->trace);
}

// Where and how two values differ, or "".
std::string Difference(const json::Value& want, const json::Value& got, double tolerance,
                       const std::string& at) {
  const auto told = [&] { return at + ": expected " + want.Dump() + ", got " + got.Dump(); };
  if (want.is_number() && got.is_number()) {
    const double a = want.AsDouble(), b = got.AsDouble();
    return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(a)) ? "" : told();
  }
  if (want.is_array() && got.is_array()) {
    const json::Array &a = want.AsArray(), &b = got.AsArray();
    if (a.size() != b.size()) return told();
    for (size_t i = 0; i < a.size(); ++i) {
      std::string inner = Difference(a[i], b[i], tolerance, at + "[" + std::to_string(i) + "]");
      if (!inner.empty()) return inner;
    }
    return "";
  }
  if (want.is_object() && got.is_object()) {
    if (want.AsObject().size() != got.AsObject().size()) return told();
    for (const auto& [key, value] : want.AsObject()) {
      std::string inner = Difference(value, got[key], tolerance, at + "." + key);
      if (!inner.empty()) return inner;
    }
    return "";
  }
  return want == got ? "" : told();
}

Status Write(const std::string& path, const json::Value& cases) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << cases.DumpPretty() << '\n';
  file.close();
  return file ? OkStatus() : Internal("cannot write '" + path + "'");
}

}  // namespace

bool GoldenOptions::UpdateRequested() {
  const char* value = std::getenv("LLMD_UPDATE_GOLDEN");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

Status CheckGolden(const GoldenOptions& options) {
  LLMD_ASSIGN_OR_RETURN(json::Value cases, Read(options.path));
  SchedulerOptions scheduling;
  scheduling.seed = options.seed;
  scheduling.registry = options.registry;
  LLMD_ASSIGN_OR_RETURN(const std::unique_ptr<Scheduler> scheduler,
                        Scheduler::FromYaml(options.config_yaml, scheduling));
  if (cases.AsArray().empty()) return InvalidArgument(options.path + ": no cases");
  std::string differences;
  for (json::Value& c : *cases.MutableArray()) {
    const std::string where = options.path + ": case '" + c["name"].AsString() + "'";
    LLMD_ASSIGN_OR_RETURN(json::Value decision, Decide(*scheduler, c, where));
    if (!options.update) {
      const std::string d = Difference(c["decision"], decision, options.tolerance, "decision");
      if (!d.empty()) differences += (differences.empty() ? "" : "\n") + where + ": " + d;
    }
    c.Set("decision", std::move(decision));
  }
  if (!differences.empty()) return FailedPrecondition(std::move(differences));
  return options.update ? Write(options.path, cases) : OkStatus();
}

}  // namespace llmd::sched::testing
