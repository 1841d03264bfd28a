// Decisions recomputed by tests/support/decision_oracle.py from the published formulas alone.
#include <cmath>
#include <fstream>
#include <sstream>

#include "llmd/json.h"
#include "sched/support.h"
#include "support/paths.h"

namespace llmd::sched {
namespace {

constexpr double kTolerance = 1e-9;

json::Value Load() {
  std::ifstream file(::llmd::testing::SourcePath("tests/data/golden_decisions.json"));
  std::stringstream text;
  text << file.rdbuf();
  StatusOr<json::Value> value = json::Parse(text.str());
  EXPECT_TRUE(value.ok()) << value.status().ToString();
  return value.ok() ? std::move(*value) : json::Value();
}

std::string ConfigOf(const json::Value& c) {
  return json::Value(json::Object{{"apiVersion", "llm-d.ai/v1alpha1"},
                                  {"kind", "EndpointPickerConfig"},
                                  {"plugins", c["plugins"]},
                                  {"schedulingProfiles", c["profiles"]}})
      .Dump();
}

std::vector<std::string> Texts(const json::Value& list) {
  std::vector<std::string> out;
  for (const json::Value& v : list.AsArray()) out.push_back(v.AsString());
  return out;
}

EndpointState EndpointOf(const json::Value& v) {
  EndpointState e = Ep(v["name"].AsString(), v["waiting"].AsDouble(), v["running"].AsDouble(),
                       v["kv"].AsDouble());
  for (const auto& [key, value] : v["labels"].AsObject()) e.info.labels[key] = value.AsString();
  for (const auto& [key, value] : v["attributes"].AsObject()) e.attributes[key] = value.AsDouble();
  if (!v["address"].AsString().empty()) e.info.address = v["address"].AsString();
  e.metrics.active_models = Texts(v["active"]);
  e.metrics.waiting_models = Texts(v["waiting_models"]);
  e.metrics.max_active_models = static_cast<int>(v["max_models"].AsInt());
  return e;
}

RequestSpec RequestOf(const json::Value& v) {
  std::string prompt;
  for (const json::Value& piece : v["prompt"].AsArray()) {
    for (int64_t i = 0; i < piece.AsArray()[1].AsInt(); ++i)
      prompt += piece.AsArray()[0].AsString();
  }
  RequestSpec out = Prompt(std::move(prompt), v["model"].AsString());
  out.body = v["body"].AsString();
  if (!out.body.empty()) out.path = v["path"].AsString();
  for (const auto& [key, value] : v["headers"].AsObject())
    out.headers.emplace_back(key, value.AsString());
  return out;
}

std::vector<std::string> Names(const Decision& d, const std::vector<int>& indexes) {
  std::vector<std::string> out;
  for (int i : indexes) out.push_back(d.trace.endpoints[i].substr(std::string("default/").size()));
  return out;
}

void CompareNumbers(const json::Value& want, const std::vector<double>& got,
                    const std::string& what) {
  ASSERT_EQ(want.AsArray().size(), got.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const double expected = want.AsArray()[i].AsDouble();
    EXPECT_NEAR(got[i], expected, kTolerance * std::max(1.0, std::abs(expected))) << what << i;
  }
}

void CompareProfile(const Decision& d, const json::Value& want, const ProfileTrace& got) {
  EXPECT_EQ(got.profile, want["name"].AsString());
  ASSERT_EQ(got.filters.size(), want["filters"].AsArray().size());
  for (size_t f = 0; f < got.filters.size(); ++f) {
    const json::Array& pair = want["filters"].AsArray()[f].AsArray();
    EXPECT_EQ(got.filters[f].filter, pair[0].AsString());
    EXPECT_EQ(Names(d, got.filters[f].kept), Texts(pair[1])) << got.filters[f].filter;
  }
  ASSERT_EQ(got.scores.size(), want["scores"].AsArray().size());
  for (size_t s = 0; s < got.scores.size(); ++s) {
    const json::Array& triple = want["scores"].AsArray()[s].AsArray();
    EXPECT_EQ(got.scores[s].scorer, triple[0].AsString());
    EXPECT_EQ(got.scores[s].weight, triple[1].AsDouble());
    CompareNumbers(triple[2], got.scores[s].raw, got.scores[s].scorer + " ");
  }
  CompareNumbers(want["totals"], got.totals, "total ");
  const std::vector<std::string> best = Texts(want["best"]);
  if (best.empty()) {
    EXPECT_TRUE(got.picked.empty());
  } else {
    ASSERT_EQ(got.picked.size(), 1u);
    EXPECT_THAT(best, ::testing::Contains(Names(d, got.picked)[0]));
  }
}

void Check(const json::Value& c, uint64_t seed) {
  auto scheduler = MakeScheduler(ConfigOf(c), seed);
  ASSERT_NE(scheduler, nullptr);
  std::vector<EndpointState> endpoints;
  for (const json::Value& e : c["endpoints"].AsArray()) endpoints.push_back(EndpointOf(e));
  for (const json::Value& h : c["history"].AsArray()) {
    RequestSpec earlier = RequestOf(h["request"]);
    earlier.keep_in_flight = h["in_flight"].AsBool();
    const EndpointState& only = endpoints.at(static_cast<size_t>(h["endpoint"].AsInt()));
    ASSERT_TRUE(Must(*scheduler, earlier, {only}).ok);
  }
  const Decision d = Must(*scheduler, RequestOf(c["request"]), endpoints);
  const json::Value& want = c["expect"];
  EXPECT_EQ(d.ok, want["ok"].AsBool());
  ASSERT_EQ(d.trace.profiles.size(), want["profiles"].AsArray().size());
  for (size_t p = 0; p < d.trace.profiles.size(); ++p)
    CompareProfile(d, want["profiles"].AsArray()[p], d.trace.profiles[p]);
  if (!d.ok) return;
  EXPECT_EQ(d.decision_type, want["decision_type"].AsString());
  if (want.Find("source") != nullptr) {
    std::string peer;
    for (const EndpointState& e : endpoints) {
      if (e.info.name == want["source"].AsString()) peer = e.info.HostPort();
    }
    EXPECT_EQ(FindHeader(d.set_headers, "x-kv-cache-source-host-port"), peer);
  }
  const std::vector<std::string> peers = Texts(want["prefill"]);
  EXPECT_EQ(d.prefill.empty(), peers.empty());
  if (!peers.empty()) EXPECT_THAT(peers, ::testing::Contains(d.prefill.substr(8)));
}

TEST(GoldenDecisions, AgreeWithTheSeparateEvaluator) {
  const json::Value cases = Load();
  ASSERT_GE(cases.AsArray().size(), 200u);
  for (size_t i = 0; i < cases.AsArray().size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    Check(cases.AsArray()[i], i + 1);
    if (::testing::Test::HasFailure()) break;  // one case told in full is enough
  }
}

TEST(GoldenDecisions, CoverEveryFormulaAndTies) {
  const json::Value cases = Load();
  std::map<std::string, int> types;
  int ties = 0, refused = 0, split = 0;
  for (const json::Value& c : cases.AsArray()) {
    for (const json::Value& p : c["plugins"].AsArray()) ++types[p["type"].AsString()];
    ties += c["expect"]["profiles"].AsArray()[0]["best"].AsArray().size() > 1;
    refused += !c["expect"]["ok"].AsBool();
    split += c["expect"]["decision_type"].AsString() == "prefill-decode";
  }
  EXPECT_GE(types.size(), 20u);
  for (const auto& [type, count] : types) EXPECT_GE(count, 3) << type;
  EXPECT_GE(ties, 10);
  EXPECT_GE(refused, 10);
  EXPECT_GE(split, 5);
}

}  // namespace
}  // namespace llmd::sched
