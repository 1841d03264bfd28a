#include "cli/picker_log.h"

#include <charconv>

namespace llmd::cli {
namespace {

// The text between `key` and the next of `ends` in a printed Go struct; "" when the key is absent.
std::string_view After(std::string_view text, std::string_view key, std::string_view ends = " }]") {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return "";
  text.remove_prefix(at + key.size());
  return text.substr(0, text.find_first_of(ends));
}

// 0 when it is none.
template <typename T = double>
T Number(std::string_view text) {
  T out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

// The pods of a printed Go slice: each begins with "NamespacedName:ns/name".
std::vector<LoggedPod> PodsInText(std::string_view text) {
  constexpr std::string_view kName = "NamespacedName:";
  std::vector<LoggedPod> out;
  for (size_t at = text.find(kName); at != std::string_view::npos;) {
    const size_t next = text.find(kName, at + kName.size());
    const std::string_view one = text.substr(at, next - at);
    LoggedPod& pod = out.emplace_back();
    pod.name = After(one, kName);
    pod.address = After(one, "Address:");
    pod.waiting = Number(After(one, "WaitingQueueSize:"));
    pod.running = Number(After(one, "RunningQueueSize:"));
    pod.kv_used = Number(After(one, "KVCacheUsagePercent:"));
    at = next;
  }
  return out;
}

// The pods of a JSON value, wherever they stand in it.
void FindPods(const json::Value& value, std::vector<LoggedPod>& out) {
  if (value.is_string()) {
    for (LoggedPod& pod : PodsInText(value.AsString())) out.push_back(std::move(pod));
    return;
  }
  for (const json::Value& item : value.AsArray()) FindPods(item, out);
  if (const json::Value* name = value.Find("NamespacedName"); name && name->is_object()) {
    out.push_back({(*name)["Namespace"].AsString() + "/" + (*name)["Name"].AsString(),
                   value["Address"].AsString(), value["WaitingQueueSize"].AsDouble(),
                   value["RunningQueueSize"].AsDouble(), value["KVCacheUsagePercent"].AsDouble()});
    return;
  }
  for (const auto& [key, member] : value.AsObject()) FindPods(member, out);
}

std::vector<LoggedPod> PodsOf(const json::Value& value) {
  std::vector<LoggedPod> out;
  FindPods(value, out);
  return out;
}

std::map<std::string, double> ScoresOf(const json::Value& value) {
  std::map<std::string, double> out;
  for (const auto& [pod, score] : value.AsObject()) {
    if (score.is_number()) out.emplace(pod, score.AsDouble());
  }
  return out;
}

const std::string& FirstText(const json::Value& line, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (!line[key].AsString().empty()) return line[key].AsString();
  }
  return line[""].AsString();
}

std::string RequestIdOf(const json::Value& line) {
  const std::string& id = FirstText(line, {"x-request-id", "requestId"});
  if (!id.empty()) return id;
  return std::string(
      After(FirstText(line, {"request", "req", "pd-schedule"}), " x-request-id:", " ]"));
}

// Lines of a picker about a request from which nothing is kept.
bool SaysNothingFurther(std::string_view msg) {
  for (std::string_view known :
       {"After running filter plugins", "Before running score", "After running score",
        "No scores found for pods", "Multiple pods have the same", "Running post-schedule plugin",
        "PostResponse called", "Prefix aware scorer cleanup"}) {
    if (msg.starts_with(known)) return true;
  }
  return false;
}

// "Selecting … from 2 candidates: …" gives 2.
int CandidatesIn(std::string_view msg) {
  return Number<int>(After(msg, " from "));
}

}  // namespace

void PickerLog::Add(std::string_view line) {
  ++lines_;
  const size_t brace = line.find('{');
  const auto value = json::Parse(brace == std::string_view::npos ? "" : line.substr(brace));
  if (!value.ok() || !Take((*value)["msg"].AsString(), *value)) ++strange_;
}

bool PickerLog::Take(std::string_view msg, const json::Value& line) {
  if (msg == "LLM request assembled") {
    LoggedTry& one = Current(line, true);
    const std::string& request = line["request"].AsString();
    one.target_model = After(request, "TargetModel: ", ",");
    if (one.target_model.empty()) one.target_model = After(request, "ResolvedTargetModel: ", ",");
    one.model = request.starts_with("Model: ") ? After(request, "Model: ", ",") : one.target_model;
    return true;
  }
  if (msg.starts_with("Disagregated ") || msg.starts_with("Disaggregated ")) {
    Current(line, false).remarks.emplace_back(msg);
    return true;
  }
  return TakeFilters(msg, line) || TakeScores(msg, line) || TakeChoice(msg, line) ||
         TakeOutcome(msg, line) || SaysNothingFurther(msg);
}

bool PickerLog::TakeFilters(std::string_view msg, const json::Value& line) {
  const bool scheduling = msg.starts_with("Scheduling a request");
  if (scheduling || msg == "Before running filter plugins") {
    LoggedPass& pass = Pass(line, scheduling);
    std::vector<LoggedPod> pods = PodsOf(line["pods"]);
    if (pods.empty()) pods = PodsInText(msg);
    if (pass.pods.empty()) pass.pods = std::move(pods);
    return true;
  }
  if (msg != "Running filter plugin" && msg != "Filter plugin result") return false;
  std::vector<LoggedFilter>& filters = Pass(line, false).filters;
  const std::string& name = line["plugin"].AsString();
  const bool result = msg == "Filter plugin result";
  if (!result || filters.empty() || filters.back().name != name) filters.push_back({name, {}});
  filters.back().has_result = result;
  if (!result) return true;
  for (LoggedPod& pod : PodsOf(line["pods"])) filters.back().kept.push_back(pod.name);
  return true;
}

bool PickerLog::TakeScores(std::string_view msg, const json::Value& line) {
  if (msg == "Running scorer" || msg == "Running scorer plugin") {
    Pass(line, false).scorers.push_back(FirstText(line, {"scorer", "plugin"}));
  } else if (msg == "Got pod scores") {
    Pass(line, false).scores[FirstText(line, {"logger", "scorer", "plugin"})] =
        ScoresOf(line["scores"]);
  } else if (msg.starts_with("Before running picker plugin")) {
    for (const auto& [key, value] : line.AsObject()) {
      if (const auto totals = ScoresOf(value); !totals.empty()) Pass(line, false).totals = totals;
    }
  } else {
    return false;
  }
  return true;
}

bool PickerLog::TakeChoice(std::string_view msg, const json::Value& line) {
  if (msg.starts_with("Selecting a random pod")) {
    Pass(line, false).drawn_from = CandidatesIn(msg);
  } else if (msg.starts_with("Selecting a pod with the max") ||
             msg.starts_with("Selecting the pod with the max")) {
    Pass(line, false).by_score = true;
  } else if (msg.starts_with("After running picker plugin")) {
    LoggedPass& pass = Pass(line, false);
    const std::vector<LoggedPod> picked = PodsOf(line["result"]);
    if (!picked.empty()) pass.picked = picked[0];
    const json::Value& score = line["result"]["TargetPod"]["Score"];
    if (score.is_number()) pass.picked_score = score.AsDouble();
  } else {
    return false;
  }
  return true;
}

bool PickerLog::TakeOutcome(std::string_view msg, const json::Value& line) {
  if (msg == "Request handled") {
    LoggedTry& one = Open(line);
    one.model = line["model"].AsString();
    one.target_model = line["targetModel"].AsString();
    const std::vector<LoggedPod> pods = PodsOf(line["endpoint"]);
    one.endpoint =
        pods.empty() ? LoggedPod{.name = line["endpoint"].AsString(), .address = {}} : pods[0];
  } else if (msg == "Request refused") {
    LoggedTry& one = Open(line);
    one.refused = static_cast<int>(line["status"].AsInt());
    one.reason = FirstText(line, {"message", "reason", "err", "error"});
  } else if (msg == "LLM response assembled") {
    Current(line, false).answered = Number<int>(line["response"]["Headers"][":status"].AsString());
  } else if (msg == "Response generated") {
    LoggedTry& one = Current(line, false);
    one.prompt_tokens = line["usage"]["prompt_tokens"].AsInt(-1);
    one.completion_tokens = line["usage"]["completion_tokens"].AsInt(-1);
  } else {
    return false;
  }
  return true;
}

// The try a line belongs to: the last of its request id, or a new one.
LoggedTry& PickerLog::Current(const json::Value& line, bool starts) {
  std::string id = RequestIdOf(line);
  const auto known = latest_.find(id);
  if (!starts && known != latest_.end()) return tries_[known->second];
  latest_[id] = tries_.size();
  LoggedTry& one = tries_.emplace_back();
  one.request_id = std::move(id);
  one.time = line["ts"].AsString();
  return one;
}

// The same for a line that comes before the outcome: a try that has one is followed by another.
// Below the verbosity of "LLM request assembled" nothing else tells them apart.
LoggedTry& PickerLog::Open(const json::Value& line) {
  const LoggedTry& one = Current(line, false);
  const bool over = !one.endpoint.name.empty() || one.refused != 0;
  return Current(line, over);
}

// The pass a line belongs to.
LoggedPass& PickerLog::Pass(const json::Value& line, bool starts) {
  LoggedTry& one = starts ? Open(line) : Current(line, false);
  if (one.passes.empty() || (starts && !one.passes.back().pods.empty())) one.passes.emplace_back();
  return one.passes.back();
}

}  // namespace llmd::cli
