// The consumers of LatencyPredictionInfo over given predictions, against
// tests/support/latency_oracle.py; and what the oracle has no words for.
#include <fstream>
#include <sstream>

#include "config/graph.h"
#include "latency/headroom.h"
#include "llmd/sched/config_loader.h"
#include "sched/support.h"
#include "support/paths.h"

namespace llmd::sched {
namespace {

json::Value Cases() {
  std::ifstream file(::llmd::testing::SourcePath("tests/data/golden_latency.json"));
  std::stringstream text;
  text << file.rdbuf();
  StatusOr<json::Value> value = json::Parse(text.str());
  EXPECT_TRUE(value.ok()) << value.status().ToString();
  return value.ok() ? std::move(*value) : json::Value();
}

// One plugin of a graph with its keys, fed by hand.
class Bench {
 public:
  explicit Bench(const std::string& type, const json::Value& parameters = json::Object{}) {
    const json::Value entry =
        json::Object{{"name", "it"}, {"type", type}, {"parameters", parameters}};
    auto loaded = LoadGraph(Config({entry.Dump()}), {});
    EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
    if (loaded.ok()) graph_ = *loaded;
    request_.Reset(graph_->attribute_count);
  }
  template <typename T>
  T& Get() {
    for (const auto& plugin : graph_->plugins) {
      if (plugin->name() == "it") return dynamic_cast<T&>(*plugin);
    }
    throw std::runtime_error("no plugin");
  }
  // Which key is which is the builder's business: every attribute says both things.
  void Fill(const json::Value& c) {
    auto set = std::make_shared<EndpointSet>();
    snapshot_ = Snapshot();
    std::vector<LatencyPrediction> latency;
    std::vector<double> prefix;
    for (const json::Value& e : c["endpoints"].AsArray()) {
      auto info = std::make_shared<EndpointInfo>();
      info->name = e["name"].AsString();
      set->Add(info, static_cast<uint32_t>(set->size()));
      auto m = std::make_shared<EndpointMetrics>();
      m->waiting = e["waiting"].AsDouble();
      m->kv_usage = e["kv"].AsDouble();
      m->ever = true;
      snapshot_.Add(std::move(m));
      latency.push_back(PredictionOf(c, e));
      prefix.push_back(e["prefix"].AsDouble());
      candidates_.push_back(static_cast<uint32_t>(candidates_.size()));
    }
    snapshot_.set = std::move(set);
    for (size_t key = 0; key < graph_->attribute_count; ++key) {
      Attribute& a = request_.Put(static_cast<DataKey>(key));
      a.latency = latency;
      a.per_endpoint = a.second = prefix;
      a.total = 1;
    }
    request_.AllEligible(snapshot_.size());
    if (c["slo"].Find("ttft")) request_.slo_ttft_ms = c["slo"]["ttft"].AsDouble();
    if (c["slo"].Find("tpot")) request_.slo_tpot_ms = c["slo"]["tpot"].AsDouble();
    request_.priority = static_cast<int>(c["priority"].AsInt());
  }
  std::vector<double> Scores() {
    std::vector<double> out(candidates_.size(), std::nan(""));
    Get<Scorer>().Score(request_, snapshot_, candidates_, out);
    return out;
  }
  std::vector<std::string> Kept() {
    std::vector<uint32_t> kept = candidates_;
    Get<Filter>().Keep(request_, snapshot_, kept);
    std::vector<std::string> out;
    for (uint32_t c : kept) out.push_back(snapshot_.info(c).name);
    return out;
  }
  AdmissionDenied Admit() { return Get<Admitter>().Admit(request_, snapshot_); }
  RequestContext& request() { return request_; }
  Snapshot& snapshot() { return snapshot_; }

 private:
  static LatencyPrediction PredictionOf(const json::Value& c, const json::Value& e) {
    LatencyPrediction p;
    if (e["ttft"].is_number()) p.ttft_ms = e["ttft"].AsDouble();
    if (e["tpot"].is_number()) p.tpot_ms = e["tpot"].AsDouble();
    p.dispatched = e["dispatched"].AsDouble();
    const auto slo = [&](const char* key) {
      return c["slo"].Find(key) ? c["slo"][key].AsDouble() : -1;
    };
    const double tightest = e["tightest"].is_number() ? e["tightest"].AsDouble()
                                                      : std::numeric_limits<double>::infinity();
    latency::SetHeadroom(
        {.ttft_ms = slo("ttft"), .tpot_ms = slo("tpot"), .factor = c["factor"].AsDouble()},
        tightest, c["streaming"].AsBool() && e["role"].AsString() != "prefill", p);
    return p;
  }
  std::shared_ptr<Graph> graph_;
  RequestContext request_;
  Snapshot snapshot_;
  std::vector<uint32_t> candidates_;
};

std::vector<std::string> Texts(const json::Value& list) {
  std::vector<std::string> out;
  for (const json::Value& v : list.AsArray()) out.push_back(v.AsString());
  return out;
}

void Check(const json::Value& c) {
  const json::Value& want = c["expect"];
  Bench scorer("latency-scorer", c["scorer"]);
  scorer.Fill(c);
  const std::vector<double> scores = scorer.Scores();
  ASSERT_EQ(scores.size(), want["scores"].AsArray().size());
  for (size_t i = 0; i < scores.size(); ++i)
    EXPECT_NEAR(scores[i], std::min(1.0, want["scores"].AsArray()[i].AsDouble()), 1e-9) << i;
  for (const auto& [epsilon, key] : {std::pair{0, "tier"}, {1, "explored"}}) {
    Bench tier("slo-headroom-tier-filter", json::Object{{"epsilonExploreNeg", epsilon}});
    tier.Fill(c);
    EXPECT_EQ(tier.Kept(), Texts(want[key])) << key;
  }
  json::Object affinity = c["affinity"].AsObject();
  affinity.emplace_back("ttftSource", "latencyPredictor");
  Bench sticky("prefix-cache-affinity-filter", affinity);
  sticky.Fill(c);
  EXPECT_EQ(sticky.Kept(), Texts(want["affine"]));
  Bench admitter("latency-slo-admitter");
  admitter.Fill(c);
  const AdmissionDenied denied = admitter.Admit();
  EXPECT_EQ(denied.http_status, want["admitted"].AsBool() ? 0 : 429);
  if (denied.http_status) EXPECT_EQ(denied.dropped_reason, "rejected-saturated");
}

TEST(LatencySloAdmitter, EndpointsOutsideTheRequestsSubsetDoNotCount) {
  json::Value cases = Cases();
  bool seen = false;
  for (const json::Value& c : cases.AsArray()) {
    if (!c["expect"]["admitted"].AsBool()) continue;
    Bench admitter("latency-slo-admitter");
    admitter.Fill(c);
    if (admitter.request().priority >= 0) continue;
    // Leave the endpoints on which the request alone would be refused.
    std::vector<uint32_t> refusing;
    for (uint32_t i = 0; i < admitter.snapshot().size(); ++i) {
      admitter.request().eligible = {i};
      if (admitter.Admit().http_status != 0) refusing.push_back(i);
    }
    if (refusing.empty()) continue;
    admitter.request().eligible = refusing;
    EXPECT_EQ(admitter.Admit().http_status, 429);
    seen = true;
  }
  EXPECT_TRUE(seen);
}

TEST(GoldenLatency, AgreesWithTheSeparateEvaluator) {
  const json::Value cases = Cases();
  ASSERT_GE(cases.AsArray().size(), 200u);
  for (size_t i = 0; i < cases.AsArray().size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    Check(cases.AsArray()[i]);
    if (::testing::Test::HasFailure()) break;  // one case told in full is enough
  }
}

TEST(GoldenLatency, CoversEveryOutcome) {
  int refused = 0, tiers = 0, explored = 0, affine = 0, composite = 0;
  const json::Value cases = Cases();
  for (const json::Value& c : cases.AsArray()) {
    const size_t all = c["endpoints"].AsArray().size();
    refused += !c["expect"]["admitted"].AsBool();
    tiers += c["expect"]["tier"].AsArray().size() < all;
    explored += c["expect"]["explored"].AsArray().size() < all;
    affine += c["expect"]["affine"].AsArray().size() < all;
    bool blind = true;
    for (const json::Value& e : c["endpoints"].AsArray()) blind = blind && e["ttft"].is_null();
    composite += blind;
  }
  for (int count : {refused, tiers, explored, affine, composite}) EXPECT_GE(count, 5);
}

TEST(LatencyConsumers, AStaleEndpointStaysUnscoredBeforePredictions) {
  Bench bench("latency-scorer");
  bench.Fill(*json::Parse(
      R"({"streaming":true,"factor":1,"slo":{},"priority":0,"endpoints":[
          {"name":"a","role":"","waiting":2,"kv":0.5,"prefix":0,"dispatched":0},
          {"name":"b","role":"","waiting":4,"kv":0.5,"prefix":0,"dispatched":0}]})"));
  bench.snapshot().waiting[1] = bench.snapshot().kv_usage[1] = std::nan("");
  const std::vector<double> scores = bench.Scores();
  EXPECT_EQ(scores[0], 0.17);  // (0.5 + 0 + 0) / 3
  EXPECT_TRUE(std::isnan(scores[1]));
}

TEST(SloHeadroomTierFilter, ExploresOneRequestInAHundredByDefault) {
  const json::Value c = *json::Parse(
      R"({"streaming":true,"factor":1,"slo":{"ttft":10},"priority":0,"endpoints":[
          {"name":"meets","role":"","dispatched":1,"ttft":9,"tpot":9},
          {"name":"misses","role":"","dispatched":1,"ttft":11,"tpot":9}]})");
  Bench bench("slo-headroom-tier-filter");
  bench.Fill(c);
  int close = 0;
  for (uint64_t seed = 0; seed < 5'000; ++seed) {
    uint64_t draw = seed;
    const double u = RandomUnit(draw);
    close += u > 0.0095 && u < 0.0105;
    bench.request().random = seed;
    EXPECT_EQ(bench.Kept()[0], u < 0.01 ? "misses" : "meets") << u;
  }
  EXPECT_GT(close, 1);
}

TEST(ProbabilisticAdmitter, RefusesTheMoreTheFullerByTheFieldsDefaults) {
  const json::Value c = *json::Parse(
      R"({"streaming":true,"factor":1,"slo":{},"priority":-1,"endpoints":[
          {"name":"by its cache","role":"","waiting":1,"kv":0.24},
          {"name":"by its queue","role":"","waiting":1,"kv":0}]})");
  Bench bench("probabilistic-admitter");
  bench.Fill(c);
  const double p = std::pow((0.24 / 0.8 + 1 / 5.0) / 2, 5) * 300;  // 0.293
  int close = 0;
  for (uint64_t seed = 0; seed < 5'000; ++seed) {
    uint64_t draw = seed;
    const double u = RandomUnit(draw);
    close += std::abs(u - p) < 0.005;
    bench.request().random = seed;
    EXPECT_EQ(bench.Admit().http_status, u < p ? 429 : 0) << u;
  }
  EXPECT_GT(close, 10);
}

TEST(LatencyConsumers, PredictionsOfAnotherPoolCountAsNone) {
  const json::Value c = *json::Parse(
      R"({"streaming":true,"factor":1,"slo":{"ttft":1},"priority":-1,"endpoints":[
          {"name":"a","role":"","waiting":2,"kv":0.5,"prefix":1,"dispatched":1,"ttft":9,"tpot":9},
          {"name":"b","role":"","waiting":4,"kv":0.5,"prefix":0,"dispatched":1,"ttft":9,"tpot":9}
          ]})");
  for (const char* type : {"latency-scorer", "slo-headroom-tier-filter", "latency-slo-admitter"}) {
    Bench bench(type);
    bench.Fill(c);
    for (Attribute& a : bench.request().attributes) a.latency.resize(1);
    if (type == std::string("latency-scorer")) EXPECT_EQ(bench.Scores()[0], 0.67);
    if (type == std::string("slo-headroom-tier-filter")) EXPECT_EQ(bench.Kept().size(), 2u);
    if (type == std::string("latency-slo-admitter")) EXPECT_EQ(bench.Admit().http_status, 0);
  }
}

TEST(LatencyConsumers, TheDefaultProducerIsAddedForThem) {
  for (const char* entry : {"{type: latency-scorer}", "{type: slo-headroom-tier-filter}",
                            "{type: latency-slo-admitter}",
                            "{type: prefix-cache-affinity-filter, parameters: {ttftSource: "
                            "latencyPredictor}}"}) {
    const auto graph = LoadGraph(Config({entry}), {});
    ASSERT_TRUE(graph.ok()) << graph.status().ToString();
    EXPECT_THAT(
        GraphWarnings(**graph),
        ::testing::Contains(::testing::HasSubstr("'predicted-latency-producer' was added")));
  }
  const auto named = LoadGraph(
      Config({"{name: mine, type: predicted-latency-producer}",
              "{type: latency-scorer, parameters: {latencyPredictionInfoProducerName: mine}}"}),
      {});
  ASSERT_TRUE(named.ok());
  EXPECT_THAT(GraphWarnings(**named), ::testing::Not(::testing::Contains(::testing::HasSubstr(
                                          "'predicted-latency-producer' was added"))));
}

TEST(LatencyConsumers, ParametersThatMakeNoSenseAreErrors) {
  for (const auto& [entry, message] :
       {std::pair{"{type: latency-scorer, parameters: {ttftWeight: 0, tpotWeight: 0}}",
                  "must be positive"},
        {"{type: latency-scorer, parameters: {headroomSelectionStrategy: mostly}}", "least, most"},
        {"{type: latency-scorer, parameters: {compositeKVWeight: 0, compositeQueueWeight: 0, "
         "compositePrefixWeight: 0}}",
         "must be positive"},
        {"{type: slo-headroom-tier-filter, parameters: {epsilonExploreNeg: 2}}", "from 0 to 1"},
        {"{type: prefix-cache-affinity-filter, parameters: {ttftSource: guess}}",
         "prefillThroughput, latencyPredictor"},
        {"{type: prefix-cache-affinity-filter, parameters: {latencyPredictionInfoProducerName: "
         "x}}",
         "needs ttftSource latencyPredictor"},
        {"{type: predicted-latency-producer, parameters: {contextTTL: 0s}}", "more than 0s"},
        {"{type: predicted-latency-producer, parameters: {statePath: /nowhere/at/all}}",
         "is no directory"}}) {
    const auto graph = LoadGraph(Config({entry}), {});
    ASSERT_FALSE(graph.ok()) << entry;
    EXPECT_THAT(graph.status().message(), ::testing::HasSubstr(message)) << entry;
  }
}

}  // namespace
}  // namespace llmd::sched
