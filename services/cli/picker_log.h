// Reads the log of an endpoint picker, llmd's own or that of the Go picker (its wordings of 2025
// and before), and keeps what it tells of each request. One JSON object per line; what stands
// before the first brace (the prefixes of stern or `llmd up`) is passed over.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/json.h"

namespace llmd::cli {

struct LoggedPod {
  std::string name, address;  // "ns/name", "10.0.0.1"; "" = not said
  double waiting = 0, running = 0, kv_used = 0;
  friend bool operator==(const LoggedPod&, const LoggedPod&) = default;
};
struct LoggedFilter {
  std::string name;
  std::vector<std::string> kept;  // pods
  bool has_result = false;
};
// One pass of a profile: filter, score, pick.
struct LoggedPass {
  std::vector<LoggedPod> pods;  // all there were at its start
  std::vector<LoggedFilter> filters;
  std::vector<std::string> scorers;                             // in the order they ran
  std::map<std::string, std::map<std::string, double>> scores;  // scorer, pod: where it told them
  std::map<std::string, double> totals;                         // by pod
  LoggedPod picked;
  std::optional<double> picked_score;
  bool by_score = false;  // the picker looked for the best total
  int drawn_from = 0;     // pods among which chance chose: those of the best total when by_score
};
// One try of a request.
struct LoggedTry {
  std::string request_id;  // "" = its lines name none
  std::string time;        // of its first line, as it stands there
  std::string model, target_model;
  std::vector<std::string> remarks;
  std::vector<LoggedPass> passes;
  LoggedPod endpoint;                                  // that got the request
  int refused = 0;                                     // HTTP status
  std::string reason;                                  // of the refusal
  int answered = 0;                                    // HTTP status of the answer
  int64_t prompt_tokens = -1, completion_tokens = -1;  // -1 = not said
};

// Thread-compatible.
class PickerLog {
 public:
  // Takes one line of the log.
  void Add(std::string_view line);
  // In the order of their first lines.
  const std::vector<LoggedTry>& tries() const { return tries_; }
  size_t lines() const { return lines_; }      // taken
  size_t strange() const { return strange_; }  // of them no picker's

 private:
  bool Take(std::string_view msg, const json::Value& line);
  bool TakeFilters(std::string_view msg, const json::Value& line);
  bool TakeScores(std::string_view msg, const json::Value& line);
  bool TakeChoice(std::string_view msg, const json::Value& line);
  bool TakeOutcome(std::string_view msg, const json::Value& line);
  LoggedTry& Current(const json::Value& line, bool starts);
  LoggedTry& Open(const json::Value& line);
  LoggedPass& Pass(const json::Value& line, bool starts);

  std::vector<LoggedTry> tries_;
  std::map<std::string, size_t, std::less<>> latest_;  // request id: index of its last try
  size_t lines_ = 0, strange_ = 0;
};

// One line a try: id, model, outcome.
std::string ToLine(const LoggedTry& one);
// Everything that is known of it; `heading` goes before its first line.
std::string ToText(const LoggedTry& one, const std::string& heading = "");

}  // namespace llmd::cli
