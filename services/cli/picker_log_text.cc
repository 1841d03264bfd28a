#include <algorithm>
#include <cstdio>

#include "cli/picker_log.h"
#include "llmd/text_table.h"

namespace llmd::cli {
namespace {

std::string Short(double v) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", v);
  return text;
}

std::string Named(const LoggedPod& pod) {
  return pod.name + (pod.address.empty() ? "" : " (" + pod.address + ")");
}

std::string Id(const LoggedTry& one) {
  return one.request_id.empty() ? "(no request id)" : one.request_id;
}

std::string Outcome(const LoggedTry& one) {
  if (one.refused != 0) return "refused with " + std::to_string(one.refused) + ": " + one.reason;
  if (one.endpoint.name.empty()) return "its outcome is not in this log";
  std::string out = "-> " + Named(one.endpoint);
  if (one.answered != 0) out += ", answered " + std::to_string(one.answered);
  if (one.prompt_tokens >= 0) {
    out += ", " + std::to_string(one.prompt_tokens) + " prompt + " +
           std::to_string(std::max<int64_t>(one.completion_tokens, 0)) + " completion tokens";
  }
  return out;
}

std::string DroppedBy(const LoggedPass& pass, const std::string& pod) {
  for (const LoggedFilter& filter : pass.filters) {
    if (filter.has_result &&
        std::find(filter.kept.begin(), filter.kept.end(), pod) == filter.kept.end())
      return "dropped by " + filter.name;
  }
  return "";
}

std::string ScoreOf(const std::map<std::string, double>& scores, const std::string& pod) {
  const auto at = scores.find(pod);
  return at == scores.end() ? "-" : Short(at->second);
}

std::vector<std::string> PodRow(const LoggedPass& pass, const LoggedPod& pod) {
  std::vector<std::string> row = {pod.name, pod.address, Short(pod.waiting), Short(pod.running),
                                  Short(pod.kv_used)};
  for (const auto& [scorer, scores] : pass.scores) row.push_back(ScoreOf(scores, pod.name));
  const bool picked = pod.name == pass.picked.name;
  row.push_back(picked && pass.picked_score ? Short(*pass.picked_score)
                                            : ScoreOf(pass.totals, pod.name));
  const std::string dropped = DroppedBy(pass, pod.name);
  row.push_back(picked ? "<- chosen" : dropped);
  return row;
}

std::string PassToText(const LoggedPass& pass, size_t number) {
  std::string out = "\n  pass " + std::to_string(number);
  for (const LoggedFilter& filter : pass.filters) {
    out += " | " + filter.name;
    if (filter.has_result) out += " kept " + std::to_string(filter.kept.size());
  }
  out += "\n";
  std::vector<std::vector<std::string>> rows = {
      {"pod", "address", "waiting", "running", "KV used"}};
  for (const auto& [scorer, scores] : pass.scores) rows[0].push_back(scorer);
  rows[0].push_back("total");
  for (const LoggedPod& pod : pass.pods) rows.push_back(PodRow(pass, pod));
  if (!pass.pods.empty()) out += TextTable(rows);
  if (!pass.scorers.empty()) {
    out += "    scorers:";
    for (const std::string& scorer : pass.scorers)
      out += (&scorer == &pass.scorers[0] ? " " : ", ") + scorer;
    out += "\n";
  }
  out += "    picked: " + (pass.picked.name.empty() ? "nothing" : pass.picked.name);
  if (pass.picked_score) out += ", score " + Short(*pass.picked_score);
  if (pass.drawn_from > 1) {
    const std::string n = std::to_string(pass.drawn_from);
    out += pass.by_score ? ", tie of " + n + " broken at random" : ", one of " + n + " at random";
  }
  return out + "\n";
}

}  // namespace

std::string ToLine(const LoggedTry& one) {
  return one.time + "  " + Id(one) + "  " + (one.model.empty() ? "(no model)" : one.model) + "  " +
         Outcome(one) + "\n";
}

std::string ToText(const LoggedTry& one, const std::string& heading) {
  std::string out = heading + "request " + Id(one) + ", " + one.time + "\n  model " +
                    (one.model.empty() ? "(none)" : one.model);
  if (!one.target_model.empty() && one.target_model != one.model)
    out += ", sent as " + one.target_model;
  out += "\n";
  for (const std::string& remark : one.remarks) out += "  " + remark + "\n";
  out += "  " + Outcome(one) + "\n";
  for (size_t i = 0; i < one.passes.size(); ++i) out += PassToText(one.passes[i], i + 1);
  if (one.passes.empty() && one.refused == 0)
    out += "  how it was chosen is logged at verbosity 4 (-v 4) only\n";
  return out;
}

}  // namespace llmd::cli
