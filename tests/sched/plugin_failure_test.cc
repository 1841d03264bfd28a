// Plugins that throw: by value an error, in the services a logged line and a decision without them.
#include <cmath>
#include <stdexcept>

#include "llmd/sched/filter.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/scorer.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
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

PluginRegistry Registry() {
  PluginRegistry registry = BuiltinPlugins();
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

}  // namespace
}  // namespace llmd::sched
