// Plugins that throw: by value an error, in the services a logged line and a decision without them.
#include <cmath>
#include <stdexcept>

#include "llmd/sched/admitter.h"
#include "llmd/sched/discovery.h"
#include "llmd/sched/filter.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/producer.h"
#include "llmd/sched/saturation.h"
#include "llmd/sched/scorer.h"
#include "llmd/sched/usage_limit.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Thrower final : public Filter, public Scorer, public Picker {
 public:
  Thrower(std::string when, bool known) : when_(std::move(when)), known_(known) {}
  void Keep(RequestContext&, const Snapshot&, std::vector<uint32_t>&) override {
    MayThrow("filter");
  }
  void Score(RequestContext&, const Snapshot&, std::span<const uint32_t>,
             std::span<double> scores) override {
    for (double& score : scores) score = 1;
    MayThrow("scorer");
  }
  int Pick(RequestContext&, const Snapshot&, std::span<const uint32_t> candidates,
           std::span<const double>, std::vector<uint32_t>& picked) override {
    picked.push_back(candidates[0]);
    MayThrow("picker");
    return 1;
  }

 private:
  void MayThrow(const std::string& as) const {
    if (when_ != as) return;
    if (known_) throw std::runtime_error("no model for " + as);
    throw 7;
  }
  const std::string when_;
  const bool known_;
};

// Throws wherever else it is called.
class ThrowsEverywhere final : public Producer,
                               public Admitter,
                               public RequestHeaderHook,
                               public PreRequestHook,
                               public ResponseHook,
                               public EndpointObserver {
 public:
  explicit ThrowsEverywhere(DataKey match) : match_(match) {}
  Status Produce(RequestContext& request, const Snapshot&) override {
    request.Put(match_).total = 4;  // and nothing by endpoint, which a scorer would read
    throw std::runtime_error("produce");
  }
  AdmissionDenied Admit(RequestContext&, const Snapshot&) override {
    throw std::runtime_error("admit");
  }
  void OnRequestHeaders(RequestContext&) override { throw std::runtime_error("request headers"); }
  void PreRequest(RequestContext&, const Snapshot&, const ScheduleOutcome&, HeaderList&) override {
    throw std::runtime_error("pre-request");
  }
  void OnHeaders(RequestContext&, const ResponseInfo&, HeaderList&) override {
    throw std::runtime_error("headers");
  }
  void OnFirstChunk(RequestContext&, const ResponseInfo&) override {
    throw std::runtime_error("first chunk");
  }
  void OnEnd(RequestContext&, const ResponseInfo&) override { throw std::runtime_error("end"); }
  void Report(const RequestContext&, const ResponseInfo&,
              std::vector<ReportedAttribute>&) override {
    throw std::runtime_error("report");
  }
  bool wants_body() const override { return true; }
  void OnEndpointGone(const EndpointInfo&, uint32_t) override { throw std::runtime_error("gone"); }

 private:
  const DataKey match_;
};

// Throws where flow control and the pool call it.
class PoolThrower final : public SaturationDetector, public UsageLimitPolicy, public Discovery {
 public:
  double Saturation(const Snapshot&, const std::vector<uint32_t>&) override {
    throw std::runtime_error("saturation");
  }
  void Ceilings(double, std::span<const int>, std::span<double> ceilings) override {
    for (double& ceiling : ceilings) ceiling = 0;
    throw std::runtime_error("ceilings");
  }
  Status Start(std::function<void(std::vector<EndpointInfo>)>) override {
    throw std::runtime_error("discovery");
  }
  void Stop() override {}
};

PluginRegistry Registry() {
  PluginRegistry registry = BuiltinPlugins();
  EXPECT_EQ(
      AddPlugin(registry, {.type = "throws-everywhere",
                           .kind = "producer",
                           .help = "Test.",
                           .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                             return std::unique_ptr<Plugin>(std::make_unique<ThrowsEverywhere>(
                                 args.env.Produce("PrefixCacheMatchInfo")));
                           }}),
      OkStatus());
  EXPECT_EQ(AddPlugin(registry, {.type = "pool-thrower",
                                 .kind = "detector, usage limit, discovery",
                                 .help = "Test.",
                                 .make = [](PluginArgs&) -> StatusOr<std::unique_ptr<Plugin>> {
                                   return std::unique_ptr<Plugin>(std::make_unique<PoolThrower>());
                                 }}),
            OkStatus());
  EXPECT_EQ(
      AddPlugin(registry, {.type = "thrower",
                           .kind = "filter, scorer, picker",
                           .help = "Test.",
                           .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                             Params params(args.parameters);
                             const std::string when = params.String("when", "");
                             const bool known = params.Bool("known", true);
                             LLMD_RETURN_IF_ERROR(params.Finish());
                             return std::unique_ptr<Plugin>(std::make_unique<Thrower>(when, known));
                           }}),
      OkStatus());
  return registry;
}

std::string Entry(const std::string& when, bool known = true) {
  return "{name: mine, type: thrower, parameters: {when: " + when +
         ", known: " + (known ? "true" : "false") + "}}";
}

StatusOr<Decision> Decide(const std::string& entry) {
  const PluginRegistry registry = Registry();
  auto scheduler = Scheduler::FromYaml(Config({entry}), {.registry = &registry});
  EXPECT_TRUE(scheduler.ok()) << scheduler.status().ToString();
  return (*scheduler)->Schedule(Prompt("x"), std::vector<EndpointState>{Ep("a"), Ep("b")});
}

TEST(PluginFailure, IsAnErrorThatNamesThePlugin) {
  EXPECT_TRUE(Decide(Entry("never")).ok());
  for (const char* kind : {"filter", "scorer", "picker"}) {
    const StatusOr<Decision> d = Decide(Entry(kind));
    ASSERT_FALSE(d.ok()) << kind;
    EXPECT_EQ(d.status(), Internal("plugin 'mine' failed: no model for " + std::string(kind)));
    EXPECT_THAT(Decide(Entry(kind, false)).status().message(), HasSubstr("unknown type"));
  }
}

class ThrowingDirector : public DirectorFixture {};

TEST_F(ThrowingDirector, GoesOnWithoutTheScorerAndSaysSo) {
  options_.registry = std::make_shared<const PluginRegistry>(Registry());
  Start(Two(), {Entry("scorer")});
  const Routing r = Route(R"({"model":"m","prompt":"x"})");
  EXPECT_TRUE(r.ok);
  ASSERT_NE(r.trace, nullptr);
  EXPECT_TRUE(std::isnan(r.trace->profiles.at(0).scores.at(0).raw.at(0)));
  EXPECT_THAT(Messages(), Contains("Plugin failed"));
}

TEST_F(ThrowingDirector, AFilterThatFailsKeepsNothing) {
  options_.registry = std::make_shared<const PluginRegistry>(Registry());
  Start(Two(), {Entry("filter")});
  EXPECT_EQ(Route(R"({"model":"m","prompt":"x"})").denial.http_status, 503);
}

TEST_F(ThrowingDirector, ServesOnWhateverHookThrows) {
  options_.registry = std::make_shared<const PluginRegistry>(Registry());
  Start(Two(), {"{name: mine, type: throws-everywhere}",
                "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: mine}}"});
  const auto told = [&] {
    const std::vector<std::string> all = Messages();
    return std::count(all.begin(), all.end(), "Plugin failed");
  };
  for (int i = 0; i < 3; ++i) {
    const Routing r = Route(R"({"model":"m","prompt":"x"})");
    ASSERT_TRUE(r.ok) << r.denial.message;
    EXPECT_THAT(r.trace->profiles.at(0).totals, ElementsAre(0, 0));
    std::string replaced;
    director_->OnResponseHeaders(r.state, 200, {});
    director_->OnResponseBody(r.state, R"({"usage":{"prompt_tokens":3}})", true, &replaced);
  }
  EXPECT_EQ(told(), 1) << "once a second";
  clock_.Advance(std::chrono::seconds(2));
  EXPECT_TRUE(Route(R"({"model":"m","prompt":"x"})").ok);
  EXPECT_EQ(told(), 2);
  json::Value last;
  for (const json::Value& line : sink_->Lines()) {
    if (line["msg"].AsString() == "Plugin failed") last = line;
  }
  EXPECT_EQ(last["plugin"].AsString(), "mine");
  // Header hook, producer, admitter, before the request, on the answer's headers, first piece and
  // end, and the report: eight a request, of which one was told.
  EXPECT_EQ(last["failuresNotLogged"].AsInt(), 3 * 8 - 1);
  EXPECT_EQ(last["error"].AsString(), "plugin 'mine' failed: request headers");
  // Endpoints go, which the plugin observes.
  const std::string none = options_.config_yaml.substr(0, options_.config_yaml.find("dataLayer:"));
  EXPECT_TRUE(director_->Reload(none + "dataLayer: {injectDefaults: false}\n").ok());
  EXPECT_EQ(director_->Endpoints().size(), 0u);
}

TEST_F(ThrowingDirector, HoldsNothingBackForABrokenDetectorOrLimit) {
  options_.registry = std::make_shared<const PluginRegistry>(Registry());
  for (const char* broken :
       {"saturationDetector: {pluginRef: mine}", "usageLimitPolicyPluginRef: mine"}) {
    Start(Two(), {"{name: mine, type: pool-thrower}", "{type: queue-scorer}"},
          "featureGates: [flowControl]\nflowControl: {" + std::string(broken) + "}\n");
    EXPECT_TRUE(Route(R"({"model":"m","prompt":"x"})").ok) << broken;
    EXPECT_THAT(Messages(), Contains("Plugin failed")) << broken;
  }
}

TEST_F(ThrowingDirector, DoesNotStartWithoutItsDiscovery) {
  options_.registry = std::make_shared<const PluginRegistry>(Registry());
  options_.config_yaml = Config({"{name: mine, type: pool-thrower}"}) +
                         "dataLayer: {injectDefaults: false, discovery: {pluginRef: mine}}\n";
  auto made = Director::Create(options_, fetch_, Logger(sink_, LogLevel::kDebug), metrics_, clock_);
  EXPECT_EQ(made.status(), Internal("plugin 'mine' failed: discovery"));
}

TEST(PluginFailure, OfAProducerOrHookIsAnErrorByValue) {
  EXPECT_EQ(Decide("{name: mine, type: throws-everywhere}").status(),
            Internal("plugin 'mine' failed: produce"));
}

}  // namespace
}  // namespace llmd::sched
