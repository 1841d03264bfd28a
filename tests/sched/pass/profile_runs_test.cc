// A profile handler that runs profiles more often than there are any.
#include <cstring>
#include <vector>

#include "llmd/sched/profile_handler.h"
#include "pass/scheduling_pass.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

// Runs its first profile `runs` times, each for one endpoint fewer, and keeps what it was handed.
class Repeater final : public ProfileHandler {
 public:
  explicit Repeater(int runs) : runs_(runs) {}
  void Schedule(RequestContext& request, ProfileRunner& runner, ScheduleOutcome& outcome) override {
    std::vector<const std::vector<uint32_t>*> handed;
    std::vector<std::vector<uint32_t>> copies;
    std::vector<std::vector<unsigned char>> litter;
    for (int i = 0; i < runs_; ++i) {
      handed.push_back(&runner.Run(0));
      copies.push_back(*handed.back());
      if (request.eligible.size() > 1) request.eligible.pop_back();
      // Takes the place of whatever the run has freed.
      for (size_t records = 1; records <= 64; records *= 2)
        litter.emplace_back(records * sizeof(ProfileRecord), 0xff);
    }
    kept = handed.size();
    for (size_t i = 0; i < handed.size(); ++i) kept -= *handed[i] == copies[i] ? 0 : 1;
    outcome.primary_profile = 0;
    outcome.primary = *handed.front();
  }
  size_t kept = 0;

 private:
  const int runs_;
};

TEST(SchedulingPass, ResultsOfAllRunsStayValid) {
  for (const int runs : {1, 2, 3, 4, 5, 40}) {
    Repeater* handler = nullptr;
    PluginRegistry registry = BuiltinPlugins();
    ASSERT_EQ(AddPlugin(registry, {.type = "repeater",
                                   .kind = "profile handler",
                                   .help = "Test.",
                                   .make = [&](PluginArgs&) -> StatusOr<std::unique_ptr<Plugin>> {
                                     auto made = std::make_unique<Repeater>(runs);
                                     handler = made.get();
                                     return std::unique_ptr<Plugin>(std::move(made));
                                   }}),
              OkStatus());
    auto s = Scheduler::FromYaml(Config({"{type: repeater}", "{type: queue-scorer}"}),
                                 {.registry = &registry});
    ASSERT_TRUE(s.ok()) << s.status().ToString();
    std::vector<EndpointState> pool;
    for (int i = 0; i < 50; ++i) pool.push_back(Ep("e" + std::to_string(i), 50 - i));
    const Decision d = Must(**s, Prompt("x"), pool);
    EXPECT_EQ(handler->kept, static_cast<size_t>(runs));
    EXPECT_EQ(d.picked.at(0).endpoint, "default/e49");
    EXPECT_EQ(d.trace.profiles.size(), static_cast<size_t>(runs));
    EXPECT_EQ(d.trace.profiles.back().candidates.size(), static_cast<size_t>(50 - runs + 1));
  }
}

}  // namespace
}  // namespace llmd::sched
