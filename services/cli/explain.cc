#include <cstdio>
#include <fstream>
#include <iostream>
#include <set>

#include "cli/picker_log.h"
#include "cli/plan.h"
#include "cli/up.h"
#include "common/flags.h"
#include "common/process.h"
#include "llmd/http/client.h"
#include "llmd/nearest.h"
#include "llmd/sched/decision_tries.h"

namespace llmd::cli {
namespace {

struct ExplainFlags {
  std::string request_id, cluster = "default", admin, log;
  bool json = false;
  int64_t limit = 20;
};

StatusOr<uint16_t> AdminPort(const std::string& cluster) {
  LLMD_ASSIGN_OR_RETURN(const json::Value run, ReadRunFile(cluster));
  return static_cast<uint16_t>(run["adminPort"].AsInt());
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

Status ExplainRunning(const ExplainFlags& flags) {
  http::HostPort admin{"127.0.0.1", 0};
  if (flags.admin.empty()) {
    LLMD_ASSIGN_OR_RETURN(admin.port, AdminPort(flags.cluster));
  } else {
    LLMD_ASSIGN_OR_RETURN(admin, http::ParseHostPort(flags.admin));
  }
  const bool list = flags.request_id.empty();
  LLMD_ASSIGN_OR_RETURN(const json::Value value,
                        list ? Fetch(admin, "/debug/decisions?limit=" + std::to_string(flags.limit),
                                     "the picker at " + admin.ToString() + " lists no decisions")
                             : Fetch(admin, "/debug/decisions/" + flags.request_id,
                                     "no decision for request '" + flags.request_id +
                                         "': the picker keeps the last 4096 or 8 MB of them"));
  if (flags.json) {
    std::puts(value.DumpPretty().c_str());
    return OkStatus();
  }
  if (list) {
    PrintList(value);
    return OkStatus();
  }
  LLMD_ASSIGN_OR_RETURN(const std::vector<sched::DecisionTrace> tries, sched::TriesFromJson(value));
  std::fputs(sched::TriesToText(tries).c_str(), stdout);
  return OkStatus();
}

StatusOr<PickerLog> ReadLog(const std::string& path) {
  std::ifstream file;
  if (path != "-") file.open(path);
  if (path != "-" && !file) return NotFound("cannot read the log '" + path + "'");
  std::istream& in = path == "-" ? std::cin : file;
  PickerLog log;
  for (std::string line; std::getline(in, line);) log.Add(line);
  if (log.tries().empty()) {
    return InvalidArgument("'" + path + "' tells of no request: none of its " +
                           std::to_string(log.lines()) +
                           " lines is one that an endpoint picker writes for a request");
  }
  return log;
}

Status NotInLog(const ExplainFlags& flags, const PickerLog& log) {
  std::set<std::string> ids;
  for (const LoggedTry& one : log.tries()) ids.insert(one.request_id);
  return NotFound("'" + flags.log + "' tells of " + std::to_string(ids.size()) +
                  " requests, none of them '" + flags.request_id + "'" +
                  DidYouMean(flags.request_id, {ids.begin(), ids.end()}));
}

Status ExplainLog(const ExplainFlags& flags) {
  LLMD_ASSIGN_OR_RETURN(const PickerLog log, ReadLog(flags.log));
  std::vector<const LoggedTry*> found;
  for (const LoggedTry& one : log.tries()) {
    if (flags.request_id.empty() || one.request_id == flags.request_id) found.push_back(&one);
  }
  if (found.empty()) return NotInLog(flags, log);
  const bool list = flags.request_id.empty() && found.size() > 1;
  if (list || found.size() > 1) {
    for (const LoggedTry* one : found) std::fputs(ToLine(*one).c_str(), stdout);
  }
  for (size_t i = 0; !list && i < found.size(); ++i) {
    const std::string number =
        "try " + std::to_string(i + 1) + " of " + std::to_string(found.size());
    std::fputs(ToText(*found[i], found.size() > 1 ? "\n" + number + ", " : "").c_str(), stdout);
  }
  return OkStatus();
}

}  // namespace

int RunExplain(int argc, const char* const* argv) {
  ExplainFlags flags;
  services::FlagSet set(
      "llmd explain",
      "Shows how a recent request was routed: every try, every filter, score and the choice.");
  set.Positional("REQUEST_ID", &flags.request_id,
                 "the x-request-id of the answer; without one the last decisions are listed");
  set.Int("limit", &flags.limit, 1, 1000, "decisions in the list");
  set.String("name", &flags.cluster, "name of the cluster llmd up started");
  set.String("admin", &flags.admin,
             "HOST:PORT of the picker's or gateway's admin port, instead of a cluster's name");
  set.String("log", &flags.log,
             "read a picker's log instead of asking one, llmd's or the Go picker's; - = stdin");
  set.Bool("json", &flags.json, "print the decision as JSON");
  const auto outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  if (!flags.log.empty() && flags.json)
    return services::Fail(InvalidArgument("--json: a log is shown as text only"));
  const Status s = flags.log.empty() ? ExplainRunning(flags) : ExplainLog(flags);
  return s.ok() ? 0 : services::Fail(s);
}

}  // namespace llmd::cli
