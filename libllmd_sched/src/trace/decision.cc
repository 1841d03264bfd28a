#include "llmd/sched/decision.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "llmd/text_table.h"

namespace llmd::sched {
namespace {

json::Value Number(double v) {
  return std::isnan(v) ? json::Value() : json::Value(v);
}

template <typename T>
json::Value List(const std::vector<T>& values) {
  json::Array out;
  for (const T& v : values) {
    if constexpr (std::is_same_v<T, double>)
      out.push_back(Number(v));
    else
      out.emplace_back(v);
  }
  return out;
}

json::Value ProfileToJson(const ProfileTrace& p) {
  json::Array filters, scores;
  for (const FilterTrace& f : p.filters)
    filters.push_back(json::Object{{"filter", f.filter}, {"kept", List(f.kept)}});
  for (const ScoreTrace& s : p.scores) {
    std::vector<double> weighted;
    weighted.reserve(s.raw.size());
    for (size_t c = 0; c < s.raw.size(); ++c) weighted.push_back(p.Weighted(s, c));
    scores.push_back(json::Object{{"scorer", s.scorer},
                                  {"weight", s.weight},
                                  {"raw", List(s.raw)},
                                  {"weighted", List(weighted)}});
  }
  return json::Object{{"profile", p.profile},
                      {"filters", std::move(filters)},
                      {"candidates", List(p.candidates)},
                      {"scores", std::move(scores)},
                      {"totals", List(p.totals)},
                      {"picker", p.picker},
                      {"picked", List(p.picked)},
                      {"tied", p.tied},
                      {"margin", p.Margin()},
                      {"error", p.error}};
}

std::vector<double> Doubles(const json::Value& v) {
  std::vector<double> out;
  for (const json::Value& e : v.AsArray()) out.push_back(e.is_null() ? std::nan("") : e.AsDouble());
  return out;
}
std::vector<int> Ints(const json::Value& v) {
  std::vector<int> out;
  for (const json::Value& e : v.AsArray()) out.push_back(static_cast<int>(e.AsInt(-1)));
  return out;
}
std::vector<std::string> Texts(const json::Value& v) {
  std::vector<std::string> out;
  for (const json::Value& e : v.AsArray()) out.push_back(e.AsString());
  return out;
}

ProfileTrace ProfileFromJson(const json::Value& v) {
  ProfileTrace out;
  out.profile = v["profile"].AsString();
  for (const json::Value& f : v["filters"].AsArray())
    out.filters.push_back({f["filter"].AsString(), Ints(f["kept"])});
  out.candidates = Ints(v["candidates"]);
  for (const json::Value& s : v["scores"].AsArray()) {
    out.scores.push_back({s["scorer"].AsString(), s["weight"].AsDouble(1), Doubles(s["raw"])});
  }
  out.totals = Doubles(v["totals"]);
  out.picker = v["picker"].AsString();
  out.picked = Ints(v["picked"]);
  out.tied = static_cast<int>(v["tied"].AsInt());
  out.error = v["error"].AsString();
  return out;
}

bool IndexesFit(const DecisionTrace& t) {
  const int n = static_cast<int>(t.endpoints.size());
  const auto fit = [n](const std::vector<int>& v) {
    return std::all_of(v.begin(), v.end(), [n](int i) { return i >= 0 && i < n; });
  };
  for (const ProfileTrace& p : t.profiles) {
    if (!fit(p.candidates) || !fit(p.picked) || p.totals.size() > p.candidates.size()) return false;
    for (const FilterTrace& f : p.filters) {
      if (!fit(f.kept)) return false;
    }
    for (const ScoreTrace& s : p.scores) {
      if (s.raw.size() != p.candidates.size()) return false;
    }
  }
  return fit(t.stale) && t.primary >= -1 && t.primary < n &&
         t.addresses.size() == t.endpoints.size() && t.metrics_age_ms.size() == t.endpoints.size();
}

std::string Fixed(double v, int digits = 4) {
  if (std::isnan(v)) return "-";
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), "%.*f", digits, v);
  return buffer;
}

std::string DroppedBy(const ProfileTrace& p, int endpoint) {
  for (const FilterTrace& f : p.filters) {
    if (std::find(f.kept.begin(), f.kept.end(), endpoint) == f.kept.end())
      return "dropped by " + f.filter;
  }
  return "not a candidate";
}

std::string Age(const DecisionTrace& t, int endpoint) {
  const double ms = t.metrics_age_ms[endpoint];
  const bool stale = std::find(t.stale.begin(), t.stale.end(), endpoint) != t.stale.end();
  return (ms < 0 ? "never" : Fixed(ms, 0) + " ms") + (stale ? " (stale)" : "");
}

std::vector<std::string> EndpointRow(const DecisionTrace& t, const ProfileTrace& p, int e) {
  std::vector<std::string> row = {t.endpoints[e], t.addresses[e], Age(t, e)};
  const auto at = std::find(p.candidates.begin(), p.candidates.end(), e);
  if (at == p.candidates.end()) {
    row.push_back(DroppedBy(p, e));
    return row;
  }
  const size_t c = static_cast<size_t>(at - p.candidates.begin());
  for (const ScoreTrace& s : p.scores)
    row.push_back(std::isnan(s.raw[c]) ? "-" : Fixed(s.raw[c]) + " -> " + Fixed(p.Weighted(s, c)));
  row.push_back(c < p.totals.size() ? Fixed(p.totals[c]) : "-");
  const auto picked = std::find(p.picked.begin(), p.picked.end(), e);
  if (picked != p.picked.end()) {
    row.push_back(picked == p.picked.begin()
                      ? "<- chosen"
                      : "fallback " + std::to_string(picked - p.picked.begin()));
  }
  return row;
}

std::string ProfileToText(const DecisionTrace& t, const ProfileTrace& p) {
  std::string out = "\n  profile " + p.profile;
  for (const FilterTrace& f : p.filters)
    out += " | " + f.filter + " kept " + std::to_string(f.kept.size());
  out += "\n";
  std::vector<std::vector<std::string>> rows = {{"endpoint", "address", "data age"}};
  for (const ScoreTrace& s : p.scores) rows[0].push_back(s.scorer + " x" + Fixed(s.weight, 2));
  rows[0].push_back("total");
  for (size_t e = 0; e < t.endpoints.size(); ++e)
    rows.push_back(EndpointRow(t, p, static_cast<int>(e)));
  out += TextTable(rows) + "    " + p.picker + ": ";
  if (!p.error.empty()) return out + p.error + "\n";
  out += p.picked.empty() ? "nothing" : t.endpoints[p.picked[0]];
  if (p.totals.size() > 1) out += ", margin " + Fixed(p.Margin());
  if (p.tied > 1) out += ", tie of " + std::to_string(p.tied) + " broken at random";
  return out + "\n";
}

json::Value ProfileToHeader(const DecisionTrace& t, const ProfileTrace& p) {
  json::Value out = json::Object{{"profile", p.profile},
                                 {"candidates", static_cast<int64_t>(p.candidates.size())}};
  if (p.picked.empty()) {
    out.Set("error", p.error);
    json::Object kept;
    for (const FilterTrace& f : p.filters)
      kept.emplace_back(f.filter, static_cast<int64_t>(f.kept.size()));
    out.Set("kept", std::move(kept));
    return out;
  }
  const int e = p.picked[0];
  out.Set("endpoint", t.endpoints[e]);
  out.Set("age_ms", std::round(t.metrics_age_ms[e]));
  const auto c = static_cast<size_t>(std::find(p.candidates.begin(), p.candidates.end(), e) -
                                     p.candidates.begin());
  if (c < p.totals.size()) {
    out.Set("total", p.totals[c]);
    out.Set("margin", p.Margin());
    out.Set("tied", p.tied);
    json::Object scores;
    for (const ScoreTrace& s : p.scores) scores.emplace_back(s.scorer, p.Weighted(s, c));
    out.Set("scores", std::move(scores));
  }
  return out;
}

}  // namespace

double ProfileTrace::Weighted(const ScoreTrace& score, size_t c) const {
  const double raw = score.raw[c];
  return raw > 0 ? score.weight * std::min(raw, 1.0) : 0.0;  // NaN gives 0
}

double ProfileTrace::Margin() const {
  if (picked.empty() || totals.size() < 2 || totals.size() != candidates.size()) return 0;
  double chosen = 0, best_other = -std::numeric_limits<double>::infinity();
  for (size_t c = 0; c < totals.size(); ++c) {
    if (candidates[c] == picked[0])
      chosen = totals[c];
    else
      best_other = std::max(best_other, totals[c]);
  }
  return chosen - best_other;
}

json::Value Summary(const DecisionTrace& t) {
  json::Value out = json::Object{{"request_id", t.request_id},
                                 {"model", t.model},
                                 {"unix_nanos", t.unix_nanos},
                                 {"decision_ns", t.decision_ns},
                                 {"decision_type", t.decision_type}};
  if (!t.pool.empty()) out.Set("pool", t.pool);
  if (t.denied_status != 0) {
    out.Set("denied_status", t.denied_status);
    out.Set("denied_reason", t.denied_reason);
  } else if (t.primary >= 0) {
    out.Set("endpoint", t.endpoints[t.primary]);
    out.Set("address", t.addresses[t.primary]);
  }
  return out;
}

std::string ToHeader(const DecisionTrace& t, size_t max_bytes) {
  json::Array profiles;
  for (const ProfileTrace& p : t.profiles) profiles.push_back(ProfileToHeader(t, p));
  json::Value out =
      json::Object{{"type", t.decision_type},
                   {"decision_us", std::floor(static_cast<double>(t.decision_ns) / 100) / 10},
                   {"profiles", std::move(profiles)}};
  if (!t.pool.empty()) out.Set("pool", t.pool);
  if (t.denied_status != 0) {
    out.Set("denied_status", t.denied_status);
    out.Set("denied_reason", t.denied_reason);
  }
  std::string text = out.Dump();
  for (char& c : text) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return text.size() <= max_bytes ? text : "";
}

json::Value ToJson(const DecisionTrace& t) {
  json::Array profiles;
  for (const ProfileTrace& p : t.profiles) profiles.push_back(ProfileToJson(p));
  return json::Object{{"request_id", t.request_id},
                      {"pool", t.pool},
                      {"model", t.model},
                      {"unix_nanos", t.unix_nanos},
                      {"decision_ns", t.decision_ns},
                      {"endpoints", List(t.endpoints)},
                      {"addresses", List(t.addresses)},
                      {"metrics_age_ms", List(t.metrics_age_ms)},
                      {"stale", List(t.stale)},
                      {"profiles", std::move(profiles)},
                      {"decision_type", t.decision_type},
                      {"primary", t.primary},
                      {"denied_status", t.denied_status},
                      {"denied_reason", t.denied_reason}};
}

StatusOr<DecisionTrace> DecisionFromJson(const json::Value& v) {
  if (!v.is_object())
    return InvalidArgument("expected a decision object, got " + std::string(v.TypeName()));
  DecisionTrace out;
  out.request_id = v["request_id"].AsString();
  out.pool = v["pool"].AsString();
  out.model = v["model"].AsString();
  out.unix_nanos = v["unix_nanos"].AsInt();
  out.decision_ns = v["decision_ns"].AsUint();
  out.endpoints = Texts(v["endpoints"]);
  out.addresses = Texts(v["addresses"]);
  out.metrics_age_ms = Doubles(v["metrics_age_ms"]);
  out.stale = Ints(v["stale"]);
  for (const json::Value& p : v["profiles"].AsArray()) out.profiles.push_back(ProfileFromJson(p));
  out.decision_type = v["decision_type"].AsString();
  out.primary = static_cast<int>(v["primary"].AsInt(-1));
  out.denied_status = static_cast<int>(v["denied_status"].AsInt());
  out.denied_reason = v["denied_reason"].AsString();
  if (!IndexesFit(out))
    return InvalidArgument("decision '" + out.request_id + "' names endpoints it does not list");
  return out;
}

std::string ToText(const DecisionTrace& t) {
  std::string out = "request " + t.request_id + (t.pool.empty() ? "" : ", pool " + t.pool) +
                    "\n  model " + (t.model.empty() ? "(none)" : t.model) + ", " +
                    std::to_string(t.endpoints.size()) + " endpoints, decided in " +
                    Fixed(static_cast<double>(t.decision_ns) / 1000, 1) + " us\n";
  if (t.denied_status != 0) {
    out += "  refused with " + std::to_string(t.denied_status) + ": " + t.denied_reason + "\n";
  } else if (t.primary >= 0) {
    out += "  " + t.decision_type + " -> " + t.endpoints[t.primary] + " (" +
           t.addresses[t.primary] + ")\n";
  }
  for (const ProfileTrace& p : t.profiles) out += ProfileToText(t, p);
  return out;
}

}  // namespace llmd::sched
