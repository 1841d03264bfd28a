#include <cstdio>

#include "cli/plan.h"
#include "cli/up.h"
#include "common/flags.h"
#include "common/process.h"
#include "llmd/http/client.h"
#include "llmd/sched/decision.h"

namespace llmd::cli {
namespace {

StatusOr<uint16_t> AdminPort(const std::string& cluster) {
  LLMD_ASSIGN_OR_RETURN(const json::Value run, ReadRunFile(cluster));
  return static_cast<uint16_t>(run["eppAdminPort"].AsInt());
}

StatusOr<json::Value> Fetch(const http::HostPort& admin, const std::string& target,
                            const std::string& missing) {
  LLMD_ASSIGN_OR_RETURN(auto runtime, http::Runtime::Create(1));
  http::Client client(*runtime, {});
  http::RequestHead head;
  head.target = target;
  LLMD_ASSIGN_OR_RETURN(const http::Response response,
                        client.FetchBlocking(admin, std::move(head), "", {}));
  if (response.head.status == 404) return NotFound(missing);
  if (response.head.status != 200) {
    return Unavailable("picker at " + admin.ToString() + " answered " +
                       std::to_string(response.head.status));
  }
  return json::Parse(response.body);
}

// One line a decision, newest first.
void PrintList(const json::Value& list) {
  for (const json::Value& d : list.AsArray()) {
    const bool refused = d["denied_status"].AsInt() != 0;
    const std::string where = refused ? "refused " + std::to_string(d["denied_status"].AsInt()) +
                                            " " + d["denied_reason"].AsString()
                                      : d["decision_type"].AsString() + " -> " +
                                            d["endpoint"].AsString() + " (" +
                                            d["address"].AsString() + ")";
    std::printf("%s  %s%s%s  %s\n", d["request_id"].AsString().c_str(),
                d["pool"].AsString().c_str(), d["pool"].AsString().empty() ? "" : "  ",
                d["model"].AsString().c_str(), where.c_str());
  }
}

Status Explain(const std::string& request_id, const std::string& cluster,
               const std::string& admin_text, bool as_json, int64_t limit) {
  http::HostPort admin{"127.0.0.1", 0};
  if (admin_text.empty()) {
    LLMD_ASSIGN_OR_RETURN(admin.port, AdminPort(cluster));
  } else {
    LLMD_ASSIGN_OR_RETURN(admin, http::ParseHostPort(admin_text));
  }
  const bool list = request_id.empty();
  LLMD_ASSIGN_OR_RETURN(
      const json::Value value,
      list ? Fetch(admin, "/debug/decisions?limit=" + std::to_string(limit),
                   "the picker at " + admin.ToString() + " lists no decisions")
           : Fetch(admin, "/debug/decisions/" + request_id,
                   "no decision for request '" + request_id + "': the picker keeps the last 4096 or 8 MB of them"));
  if (as_json) {
    std::puts(value.DumpPretty().c_str());
    return OkStatus();
  }
  if (list) {
    PrintList(value);
    return OkStatus();
  }
  LLMD_ASSIGN_OR_RETURN(const sched::DecisionTrace trace, sched::DecisionFromJson(value));
  std::fputs(sched::ToText(trace).c_str(), stdout);
  return OkStatus();
}

}  // namespace

int RunExplain(int argc, const char* const* argv) {
  std::string request_id, cluster = "default", admin;
  bool as_json = false;
  int64_t limit = 20;
  services::FlagSet set(
      "llmd explain", "Shows how a recent request was routed: every filter, score and the choice.");
  set.Positional("REQUEST_ID", &request_id,
                 "the x-request-id of the answer; without one the last decisions are listed");
  set.Int("limit", &limit, 1, 1000, "decisions in the list");
  set.String("name", &cluster, "name of the cluster llmd up started");
  set.String("admin", &admin,
             "HOST:PORT of the picker's or gateway's admin port, instead of a cluster's name");
  set.Bool("json", &as_json, "print the decision as JSON");
  const auto outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  if (Status s = Explain(request_id, cluster, admin, as_json, limit); !s.ok())
    return services::Fail(s);
  return 0;
}

}  // namespace llmd::cli
