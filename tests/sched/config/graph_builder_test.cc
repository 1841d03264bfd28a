// Plugins from outside the library: how the graph builds, orders and drives them.
#include "config/graph_builder.h"

#include "llmd/sched/config_loader.h"
#include "pass/scheduling_pass.h"
#include "plugins/common.h"
#include "sched/support.h"
#include "trace/record.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Calls = std::vector<std::string>;

class Noisy : public Producer, public PreRequestHook, public ResponseHook {
 public:
  Noisy(std::string name, Calls* calls, bool fails)
      : label_(std::move(name)), calls_(calls), fails_(fails) {}
  Status Produce(RequestContext&, const Snapshot&) override {
    calls_->push_back("produce " + label_);
    return fails_ ? Internal("broken") : OkStatus();
  }
  void PreRequest(RequestContext&, const Snapshot&, const ScheduleOutcome&,
                  HeaderList& headers) override {
    calls_->push_back("pre " + label_);
    headers.emplace_back("x-" + label_, "1");
  }
  void OnEnd(RequestContext&, const ResponseInfo&) override { calls_->push_back("end " + label_); }

 private:
  const std::string label_;
  Calls* const calls_;
  const bool fails_;
};

class OnesScorer final : public Scorer {
 public:
  explicit OnesScorer(double value) : value_(value) {}
  void Score(RequestContext&, const Snapshot&, std::span<const uint32_t>,
             std::span<double> scores) override {
    std::fill(scores.begin(), scores.end(), value_);
  }

 private:
  const double value_;
};

Snapshot TwoEndpoints() {
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  for (const char* name : {"a", "b"}) {
    set->Add(std::make_shared<const EndpointInfo>(Ep(name).info),
             static_cast<uint32_t>(set->size()));
    snapshot.Add(std::make_shared<const EndpointMetrics>());
  }
  snapshot.set = set;
  return snapshot;
}

class GraphBuilderTest : public ::testing::Test {
 protected:
  // A type that produces `makes`, reads `reads` and may depend on another plugin.
  void Add(const std::string& type, const std::string& makes, const std::string& reads,
           bool required = true, const std::string& needs = "", bool fails = false) {
    ASSERT_TRUE(
        AddPlugin(registry_,
                  {.type = type,
                   .kind = "producer",
                   .help = "For tests.",
                   .make = [=, this](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                     Params params(args.parameters);
                     if (!needs.empty()) {
                       LLMD_ASSIGN_OR_RETURN(Plugin* const other, args.env.Dependency(needs));
                       if (other == nullptr) return Internal("no plugin");
                     }
                     if (!makes.empty()) args.env.Produce(makes);
                     if (!reads.empty()) {
                       const size_t slash = reads.find('/');
                       args.env.Consume(reads.substr(0, slash), reads.substr(slash + 1), required);
                     }
                     return Done(params, std::make_unique<Noisy>(args.name, &calls_, fails));
                   }})
            .ok());
  }
  StatusOr<std::shared_ptr<Graph>> Load(const std::vector<std::string>& types,
                                        const std::string& rest = "") {
    std::vector<std::string> entries;
    for (const std::string& t : types) entries.push_back("{type: " + t + "}");
    return LoadGraph(Config(entries) + rest, {.registry = &registry_});
  }
  std::vector<std::string> Order(const std::vector<std::string>& types) {
    const auto graph = Load(types);
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    std::vector<std::string> out;
    if (graph.ok()) {
      for (const auto& p : (*graph)->producers) out.push_back(p.plugin->name());
    }
    return out;
  }
  Calls calls_;
  PluginRegistry registry_ = BuiltinPlugins();
};

TEST_F(GraphBuilderTest, ProducersRunAfterWhatTheyReadOptionalOrNot) {
  Add("first", "One", "");
  Add("second", "Two", "One/first");
  Add("third", "", "Two/second", false);
  EXPECT_THAT(Order({"third", "second", "first"}), ElementsAre("first", "second", "third"));
  EXPECT_THAT(Order({"first", "third", "second"}), ElementsAre("first", "second", "third"));
}

TEST_F(GraphBuilderTest, IndependentProducersKeepTheConfiguredOrder) {
  for (const char* t : {"x", "y", "z"}) Add(t, std::string("Of") + t, "");
  EXPECT_THAT(Order({"z", "x", "y"}), ElementsAre("z", "x", "y"));
}

TEST_F(GraphBuilderTest, ACycleOfDataIsAnError) {
  Add("egg", "Egg", "Hen/hen");
  Add("hen", "Hen", "Egg/egg");
  EXPECT_THAT(Load({"egg", "hen"}).status().message(), HasSubstr("wait for each other"));
}

TEST_F(GraphBuilderTest, ACycleOfDependenciesIsAnError) {
  Add("a", "", "", true, "b");
  Add("b", "", "", true, "a");
  EXPECT_THAT(Load({"a", "b"}).status().message(), HasSubstr("depends on itself"));
}

TEST_F(GraphBuilderTest, MissingDataIsAnErrorWhenRequiredAndAWarningOtherwise) {
  Add("needs", "", "Nothing/nobody");
  Add("likes", "", "Nothing/nobody", false);
  EXPECT_THAT(Load({"needs"}).status().message(),
              HasSubstr("'needs' reads Nothing/nobody, which nobody produces"));
  const auto graph = Load({"likes"});
  ASSERT_TRUE(graph.ok());
  EXPECT_THAT(GraphWarnings(**graph),
              ::testing::Contains(HasSubstr("'likes' goes without Nothing/nobody")));
}

TEST_F(GraphBuilderTest, DependenciesAreBuiltFirstAndUnknownOnesNamed) {
  Add("base", "", "");
  Add("top", "", "", true, "base");
  EXPECT_TRUE(Load({"top", "base"}).ok());
  EXPECT_THAT(Load({"top"}).status().message(), HasSubstr("no plugin is called 'base'"));
}

TEST_F(GraphBuilderTest, TwoPluginsOfOneNameAreRefusedAndOneTypeTwiceIsNot) {
  Add("p", "", "");
  EXPECT_THAT(
      LoadGraph(Config({"{type: p}", "{type: p}"}), {.registry = &registry_}).status().message(),
      HasSubstr("already called 'p'"));
  EXPECT_TRUE(
      LoadGraph(Config({"{type: p}", "{name: q, type: p}"}), {.registry = &registry_}).ok());
}

TEST_F(GraphBuilderTest, UnknownTypesNameTheNearestAndReferencesToo) {
  const std::string type(Load({"queue-scorrer"}).status().message());
  EXPECT_THAT(type, HasSubstr("unknown plugin type 'queue-scorrer'; did you mean 'queue-scorer'"));
  EXPECT_THAT(type, HasSubstr("`llmd plugins` lists them all"));
  EXPECT_THAT(type, Not(HasSubstr("round-robin"))) << "all types on one line help nobody";
  EXPECT_LT(type.size(), 250u);
  EXPECT_THAT(Load({"entirely-else"}).status().message(),
              HasSubstr("unknown plugin type 'entirely-else'; `llmd plugins` lists them all"));
  const auto ref = Load({"queue-scorer"},
                        "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-score}]}]");
  EXPECT_THAT(ref.status().message(), HasSubstr("did you mean 'queue-scorer'"));
  const auto undeclared = Load({"queue-scorer"},
                               "schedulingProfiles: [{name: p, plugins: [{pluginRef: "
                               "kv-cache-utilization-scorer}]}]");
  EXPECT_THAT(undeclared.status().message(),
              HasSubstr("no plugin is called 'kv-cache-utilization-scorer'; known: queue-scorer; "
                        "to use that type list it under plugins"));
}

TEST_F(GraphBuilderTest, AProfileTakesFiltersScorersAndPickersOnly) {
  Add("p", "", "");
  const auto graph = Load({"p"}, "schedulingProfiles: [{name: x, plugins: [{pluginRef: p}]}]");
  EXPECT_THAT(graph.status().message(), HasSubstr("is no filter, scorer or picker"));
  const auto two = Load({"max-score-picker", "random-picker"});
  EXPECT_THAT(two.status().message(), HasSubstr("more than one picker"));
}

TEST_F(GraphBuilderTest, ScoresAreClampedHoweverWild) {
  for (const auto& [type, value] :
       {std::pair{"big", 7.0}, {"negative", -3.0}, {"nan", std::nan("")}}) {
    const double v = value;
    ASSERT_TRUE(
        AddPlugin(registry_, {.type = type,
                              .kind = "scorer",
                              .help = "For tests.",
                              .make = [v](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                                Params params(args.parameters);
                                return Done(params, std::make_unique<OnesScorer>(v));
                              }})
            .ok());
  }
  const auto graph = Load({"big", "negative", "nan"});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  const Snapshot snapshot = TwoEndpoints();
  RequestContext request;
  request.AllEligible(2);
  DecisionRecord record;
  SchedulingPass pass(**graph, request, snapshot, record);
  ScheduleOutcome outcome;
  pass.Schedule(outcome);
  EXPECT_THAT(record.profiles.at(0).totals, ElementsAre(1.0, 1.0));
  EXPECT_THAT(record.profiles[0].raw[0], 7.0);  // the trace keeps what was said
  EXPECT_EQ(outcome.primary.size(), 1u);
}

TEST_F(GraphBuilderTest, AFailingProducerIsPassedOverAndLogged) {
  Add("broken", "A", "", true, "", true);
  Add("sound", "B", "");
  const auto graph = Load({"broken", "sound"});
  ASSERT_TRUE(graph.ok());
  const Snapshot snapshot = TwoEndpoints();
  auto sink = std::make_shared<MemoryLogSink>();
  const Logger logger(sink, LogLevel::kDebug);
  RequestContext request;
  request.log = &logger;
  DecisionRecord record;
  SchedulingPass(**graph, request, snapshot, record).Produce();
  EXPECT_THAT(calls_, ElementsAre("produce broken", "produce sound"));
  ASSERT_EQ(sink->Lines().size(), 1u);
  EXPECT_EQ(sink->Lines()[0]["msg"].AsString(), "Data producer failed");
  EXPECT_EQ(sink->Lines()[0]["plugin"].AsString(), "broken");
}

TEST(Registry, RefusesATypeTwice) {
  PluginRegistry registry = BuiltinPlugins();
  EXPECT_FALSE(AddPlugin(registry, {.type = "queue-scorer", .kind = "scorer", .help = "x"}).ok());
  EXPECT_THAT(registry.Find("no-such").status().message(), HasSubstr("no-such"));
}

}  // namespace
}  // namespace llmd::sched
