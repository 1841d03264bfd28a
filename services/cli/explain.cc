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

StatusOr<std::string> FetchDecision(const http::HostPort& admin, const std::string& request_id) {
  LLMD_ASSIGN_OR_RETURN(auto runtime, http::Runtime::Create(1));
  http::Client client(*runtime, {});
  http::RequestHead head;
  head.target = "/debug/decisions/" + request_id;
  LLMD_ASSIGN_OR_RETURN(const http::Response response,
                        client.FetchBlocking(admin, std::move(head), "", {}));
  if (response.head.status == 404) {
    return NotFound("no decision for request '" + request_id + "': the picker keeps the last 4096");
  }
  if (response.head.status != 200) {
    return Unavailable("picker at " + admin.ToString() + " answered " +
                       std::to_string(response.head.status));
  }
  return response.body;
}

Status Explain(const std::string& request_id, const std::string& cluster,
               const std::string& admin_text, bool as_json) {
  if (request_id.empty())
    return InvalidArgument("give the request id (the x-request-id of the answer)");
  http::HostPort admin{"127.0.0.1", 0};
  if (admin_text.empty()) {
    LLMD_ASSIGN_OR_RETURN(admin.port, AdminPort(cluster));
  } else {
    LLMD_ASSIGN_OR_RETURN(admin, http::ParseHostPort(admin_text));
  }
  LLMD_ASSIGN_OR_RETURN(const std::string body, FetchDecision(admin, request_id));
  LLMD_ASSIGN_OR_RETURN(const json::Value value, json::Parse(body));
  if (as_json) {
    std::puts(value.DumpPretty().c_str());
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
  services::FlagSet set(
      "llmd explain", "Shows how a recent request was routed: every filter, score and the choice.");
  set.Positional("REQUEST_ID", &request_id, "the x-request-id of the answer");
  set.String("name", &cluster, "name of the cluster llmd up started");
  set.String("admin", &admin,
             "HOST:PORT of the picker's or gateway's admin port, instead of a cluster's name");
  set.Bool("json", &as_json, "print the decision as JSON");
  const auto outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  if (Status s = Explain(request_id, cluster, admin, as_json); !s.ok()) return services::Fail(s);
  return 0;
}

}  // namespace llmd::cli
