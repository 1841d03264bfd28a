// What is known of an endpoint through its lives: nothing of one reaches the next.
#include <algorithm>

#include "llmd/sched/discovery.h"
#include "llmd/sched/producer.h"
#include "llmd/sched/scorer.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using std::chrono::seconds;

// Endpoints as the test says.
class ToldDiscovery final : public Discovery {
 public:
  Status Start(std::function<void(std::vector<EndpointInfo>)> update) override {
    tell = std::move(update);
    tell({});
    return OkStatus();
  }
  void Stop() override {}
  static inline std::function<void(std::vector<EndpointInfo>)> tell;
};

// Keeps requests with the header x-hold until the test lets them go.
class HoldingProducer final : public SlowProducer {
 public:
  Status Produce(RequestContext&, const Snapshot&) override { return OkStatus(); }
  void ProduceLater(RequestContext& request, const std::shared_ptr<const Snapshot>&,
                    std::function<void(Status)> done) override {
    if (request.Header("x-hold").empty()) return done(OkStatus());
    held.push_back(std::move(done));
  }
  static inline std::vector<std::function<void(Status)>> held;
};

// Says how many requests predicted latency counts on an endpoint, and keeps the slots it saw.
class Probe final : public Scorer {
 public:
  explicit Probe(DataKey latency) : latency_(latency) {}
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const Attribute* info = request.Get(latency_);
    for (size_t i = 0; i < candidates.size(); ++i) {
      slots[snapshot.set->names[candidates[i]]] = snapshot.set->slots[candidates[i]];
      scores[i] = info ? info->latency[candidates[i]].dispatched / 100 : 0;
    }
  }
  static inline std::map<std::string, uint32_t> slots;

 private:
  const DataKey latency_;
};

template <typename T>
PluginDescriptor Described(const char* type, const char* kind) {
  return {.type = type, .kind = kind, .help = "", .make = [](PluginArgs&) {
            return StatusOr<std::unique_ptr<Plugin>>(std::make_unique<T>());
          }};
}

std::shared_ptr<const PluginRegistry> Registry() {
  auto out = std::make_shared<PluginRegistry>(BuiltinPlugins());
  EXPECT_TRUE(AddPlugin(*out, Described<ToldDiscovery>("told-discovery", "discovery")).ok());
  EXPECT_TRUE(AddPlugin(*out, Described<HoldingProducer>("holding-producer", "producer")).ok());
  EXPECT_TRUE(AddPlugin(*out, {.type = "probe",
                               .kind = "scorer",
                               .help = "",
                               .make =
                                   [](PluginArgs& args) {
                                     const DataKey key =
                                         args.env.Consume("LatencyPredictionInfo", "", true);
                                     return StatusOr<std::unique_ptr<Plugin>>(
                                         std::make_unique<Probe>(key));
                                   }})
                  .ok());
  return out;
}

class Lives : public DirectorFixture {
 protected:
  Lives() { options_.registry = Registry(); }
  static std::string Yaml(std::vector<std::string> plugins, const std::string& rest = "") {
    plugins.push_back("{type: told-discovery}");
    plugins.push_back("{type: holding-producer}");
    return Config(plugins) +
           "dataLayer: {injectDefaults: false, discovery: {pluginRef: told-discovery}}\n" + rest;
  }
  void Begin(const std::vector<std::string>& plugins, const std::string& rest = "") {
    HoldingProducer::held.clear();
    options_.config_yaml = Yaml(plugins, rest);
    auto made =
        Director::Create(options_, nullptr, Logger(sink_, LogLevel::kInfo), metrics_, clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  static EndpointInfo At(const std::string& name, uint16_t port, const std::string& zone = "") {
    EndpointInfo e;
    e.name = name;
    e.address = "127.0.0.1";
    e.port = port;
    if (!zone.empty()) e.labels["zone"] = zone;
    return e;
  }
  static void Pool(std::vector<EndpointInfo> endpoints) {
    ToldDiscovery::tell(std::move(endpoints));
  }
  static std::string Address(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }
  // To that endpoint only.
  Routing To(uint16_t port, HeaderList headers = {}) {
    return Route(body_of_all_, Headers(std::move(headers)), {Address(port)}, true);
  }
  HeaderList Headers(HeaderList more) const {
    more.emplace_back(":path", path_of_all_);
    more.emplace_back("x-session-id", "s1");
    return more;
  }
  // Raw scores by endpoint of a request that may go anywhere.
  std::map<std::string, double> Scores(const std::string& scorer) {
    const Routing r = Route(body_of_all_, Headers({}));
    std::map<std::string, double> out;
    if (!r.trace) return out;
    for (const ProfileTrace& p : r.trace->profiles) {
      for (const ScoreTrace& s : p.scores) {
        for (size_t i = 0; s.scorer == scorer && i < p.candidates.size(); ++i)
          out[r.trace->endpoints[p.candidates[i]]] = s.raw[i];
      }
    }
    director_->Cancel(r.state);
    return out;
  }
  std::string body_of_all_ = R"({"model":"m","prompt":")" + std::string(2048, 'x') + "\"}";
  std::string path_of_all_ = "/v1/completions";
};

TEST_F(Lives, CountsEndWithTheLifeNotWithTheSlot) {
  Begin({"{type: active-request-scorer}"});
  Pool({At("a", 1), At("x", 2)});
  std::vector<Routing> running;
  for (int i = 0; i < 5; ++i) running.push_back(To(1));
  EXPECT_EQ(Scores("active-request-scorer")["default/a"], 0);
  Pool({At("x", 2)});
  Pool({At("x", 2), At("c", 3)});
  EXPECT_EQ(Scores("active-request-scorer")["default/c"], 1);
  const Routing own = To(3);
  EXPECT_EQ(Scores("active-request-scorer")["default/c"], 0);
  for (const Routing& r : running) director_->Cancel(r.state);
  EXPECT_EQ(Scores("active-request-scorer")["default/c"], 0) << "its own is still there";
  director_->Cancel(own.state);
  EXPECT_EQ(Scores("active-request-scorer")["default/c"], 1);
}

TEST_F(Lives, ALabelEditKeepsCountsAndPrefixes) {
  Begin({"{type: active-request-scorer}", "{type: prefix-cache-scorer}"});
  Pool({At("a", 1), At("x", 2)});
  const Routing running = To(1);
  Pool({At("a", 1, "b"), At("x", 2)});
  EXPECT_EQ(Scores("active-request-scorer")["default/a"], 0);
  EXPECT_EQ(Scores("prefix-cache-scorer")["default/a"], 1);
  EXPECT_EQ(director_->Endpoints()[0].labels.at("zone"), "b");
  director_->Cancel(running.state);
  EXPECT_EQ(Scores("active-request-scorer")["default/a"], 1);
}

TEST_F(Lives, AShortAbsenceKeepsTheCounts) {
  Begin({"{type: active-request-scorer}"});
  Pool({At("a", 1), At("x", 2)});
  const Routing running = To(1);
  Pool({At("x", 2)});
  clock_.Advance(seconds(9));
  Pool({At("a", 1), At("x", 2)});
  EXPECT_EQ(Scores("active-request-scorer")["default/a"], 0);
  Pool({At("x", 2)});
  clock_.Advance(seconds(11));
  Pool({At("a", 1), At("x", 2)});
  EXPECT_EQ(Scores("active-request-scorer")["default/a"], 1);
}

TEST_F(Lives, AReloadOfTheDetectorKeepsWhatItJudgesStaleEndpointsBy) {
  const std::string flow =
      "featureGates: [flowControl]\nflowControl: {saturationDetector: {pluginRef: "
      "utilization-detector}}\n";
  const auto detector = [](int queue) {
    return "{type: utilization-detector, parameters: {staleMaxConcurrency: 2, "
           "queueDepthThreshold: " +
           std::to_string(queue) + "}}";
  };
  Begin({"{type: queue-scorer}", detector(5)}, flow);
  Pool({At("a", 1)});
  int routed = 0;
  const HeaderList headers = Headers({});
  std::vector<std::shared_ptr<RequestState>> states;
  const auto ask = [&] {
    RequestInput input;
    input.headers = &headers;
    input.body = body_of_all_;
    director_->Route(std::move(input), [&](const Routing& r) {
      routed += r.ok;
      states.push_back(r.state);
    });
  };
  for (int i = 0; i < 4; ++i) ask();
  EXPECT_EQ(routed, 2);
  ASSERT_TRUE(director_->Reload(Yaml({"{type: queue-scorer}", detector(6)}, flow)).ok());
  ask();
  EXPECT_EQ(routed, 2);
  director_->Cancel(states.at(0));
  EXPECT_EQ(routed, 3);
  director_->Stop();
}

struct Kept {
  const char* scorer;
  std::string plugins;               // entries, each on a line of its own
  double fresh;                      // the score of an endpoint that nothing is known of
  bool media = false, cold = false;  // a prompt with a picture; in the end one that is new
};

class PerSlotState : public Lives, public ::testing::WithParamInterface<Kept> {};

// a leaves with requests on their way, one of them before its decision; then another endpoint gets
// its slot.
TEST_P(PerSlotState, NothingOfItReachesTheNextHolder) {
  if (GetParam().media) {
    path_of_all_ = "/v1/chat/completions";
    body_of_all_ =
        R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://p/1"}}]}]})";
  }
  std::vector<std::string> plugins = {"{type: probe}"};
  for (std::string_view rest = GetParam().plugins; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    plugins.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  Begin(plugins);
  Pool({At("a", 1), At("x", 2)});
  {
    std::vector<Routing> running = {To(1), To(1)};
    ASSERT_EQ(Probe::slots["default/a"], 0u);
    const HeaderList headers = Headers({{"x-hold", "1"}});
    RequestInput input;
    input.headers = &headers;
    input.body = body_of_all_;
    input.subset = {Address(1)};
    input.has_subset = true;
    director_->Route(std::move(input), [&](Routing r) { running.push_back(std::move(r)); });
    ASSERT_EQ(HoldingProducer::held.size(), 1u);
    Pool({At("x", 2)});
    Pool({At("x", 2), At("b", 4)});
    // The only endpoint it may have has left: its producers run once more.
    for (int run = 0; run < 2; ++run) {
      for (auto& done : std::exchange(HoldingProducer::held, {})) done(OkStatus());
    }
    ASSERT_EQ(running.size(), 3u);
    EXPECT_EQ(running[2].denial.http_status, 503);
    Scores(GetParam().scorer);
    EXPECT_NE(Probe::slots["default/b"], 0u) << "requests on their way hold it";
    for (const Routing& r : running) director_->Cancel(r.state);
  }
  Scores(GetParam().scorer);
  Pool({At("x", 2), At("c", 3), At("y", 5)});
  if (GetParam().cold) body_of_all_ = R"({"model":"m","prompt":"nobody has this"})";
  EXPECT_EQ(Scores(GetParam().scorer)["default/c"], GetParam().fresh);
  EXPECT_EQ(Probe::slots["default/c"], 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Lives, PerSlotState,
    ::testing::Values(
        Kept{"active-request-scorer", "{type: active-request-scorer}", 1},
        Kept{"token-load-scorer", "{type: token-load-scorer}", 1 - 512.0 / 4194304},
        Kept{"probe", "{type: predicted-latency-producer}", 0},
        Kept{"prefix-cache-scorer", "{type: prefix-cache-scorer}", 0},
        Kept{"no-hit-lru-scorer", "{type: no-hit-lru-scorer}", 1, false, true},
        Kept{"mm-embeddings-cache-scorer", "{type: mm-embeddings-cache-scorer}", 0, true},
        Kept{"session-affinity-scorer",
             "{type: session-affinity-scorer, parameters: {strategy: session_id}}", 0}),
    [](const auto& info) {
      std::string name = info.param.scorer;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace llmd::sched
