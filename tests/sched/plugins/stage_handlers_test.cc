// The deprecated handlers of prefill and decode and of their headers.
#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;

std::string Pd(const std::string& handler, const std::string& more = "") {
  return Config({"{type: decode-filter}", "{type: prefill-filter}",
                 "{type: always-disagg-pd-decider}", handler}) +
         more +
         "schedulingProfiles:\n"
         "- {name: decode, plugins: [{pluginRef: decode-filter}]}\n"
         "- {name: prefill, plugins: [{pluginRef: prefill-filter}]}\n";
}

const std::vector<EndpointState>& Pool() {
  static const std::vector<EndpointState> pool = {Ep("d", 0, 0, 0, "decode"),
                                                  Ep("p", 0, 0, 0, "prefill")};
  return pool;
}

int Count(const Decision& d, std::string_view name) {
  return static_cast<int>(std::count_if(d.set_headers.begin(), d.set_headers.end(),
                                        [&](const auto& h) { return h.first == name; }));
}

constexpr char kAlways[] =
    "{type: pd-profile-handler, parameters: {deciderPluginName: always-disagg-pd-decider}}";

TEST(PdProfileHandler, NamesThePrefillPeer) {
  auto s = MakeScheduler(Pd(kAlways));
  const Decision d = Must(*s, Prompt("hi"), Pool());
  EXPECT_EQ(d.picked[0].endpoint, "default/d");
  EXPECT_EQ(d.prefill, "default/p");
  EXPECT_EQ(d.decision_type, "prefill-decode");
  EXPECT_EQ(FindHeader(d.set_headers, "x-prefiller-host-port"), Pool()[1].info.HostPort());
}

TEST(PdProfileHandler, OneEndpointForBothNeedsNoPeer) {
  auto s = MakeScheduler(Pd(kAlways));
  const Decision d = Must(*s, Prompt("hi"), {Ep("both", 0, 0, 0, "prefill-decode")});
  EXPECT_EQ(d.decision_type, "decode-only");
  EXPECT_EQ(Count(d, "x-prefiller-host-port"), 0);
}

TEST(PdProfileHandler, WithoutADeciderAllIsDecodedWhereItIs) {
  auto s = MakeScheduler(Pd("{type: pd-profile-handler}"));
  EXPECT_EQ(Must(*s, Prompt("hi"), Pool()).decision_type, "decode-only");
  EXPECT_THAT(s->Warnings(), ::testing::Contains(HasSubstr("without deciderPluginName")));
}

TEST(PdProfileHandler, NoDecodeEndpointIsAnError) {
  auto s = MakeScheduler(Pd(kAlways));
  const Decision d = Must(*s, Prompt("hi"), {Ep("p", 0, 0, 0, "prefill")});
  EXPECT_FALSE(d.ok);
  EXPECT_EQ(d.denied_status, 503);
}

TEST(PdProfileHandler, ThePrimaryPortHidesTheRanks) {
  auto s = MakeScheduler(
      Pd("{type: pd-profile-handler, parameters: {primaryPort: 8000, deciderPluginName: "
         "always-disagg-pd-decider}}"));
  const Decision d = Must(*s, Prompt("hi"), Pool());
  EXPECT_EQ(FindHeader(d.set_headers, "x-data-parallel-host-port"), Pool()[0].info.HostPort());
  EXPECT_EQ(Count(d, "x-prefiller-host-port"), 1);
  EXPECT_EQ(
      Count(Must(*MakeScheduler(Pd(kAlways)), Prompt("hi"), Pool()), "x-data-parallel-host-port"),
      0);
}

TEST(PdProfileHandler, ErrorsNameTheDecider) {
  for (const auto& [decider, why] :
       {std::pair{"nobody", "no plugin is called 'nobody'"}, {"decode-filter", "is no decider"}}) {
    const auto s = Scheduler::FromYaml(
        Pd(std::string("{type: pd-profile-handler, parameters: {deciderPluginName: ") + decider +
           "}}"));
    ASSERT_FALSE(s.ok());
    EXPECT_THAT(s.status().message(), HasSubstr(why));
  }
}

TEST(StageHeaderHandlers, SetNothingTwice) {
  for (const char* type : {"prefill-header-handler", "disagg-headers-handler"}) {
    auto s = MakeScheduler(
        Config({"{type: decode-filter}", "{type: prefill-filter}",
                "{type: always-disagg-pd-decider}", kAlways, std::string("{type: ") + type + "}"}) +
        "schedulingProfiles:\n"
        "- {name: decode, plugins: [{pluginRef: decode-filter}]}\n"
        "- {name: prefill, plugins: [{pluginRef: prefill-filter}]}\n");
    EXPECT_EQ(Count(Must(*s, Prompt("hi"), Pool()), "x-prefiller-host-port"), 1) << type;
  }
}

TEST(StageHeaderHandlers, SayThatProfileNamesAreNotNeeded) {
  auto s = MakeScheduler(Config(
      {"{type: prefill-header-handler, parameters: {prefillProfile: x}}", "{type: queue-scorer}"}));
  EXPECT_THAT(s->Warnings(), ::testing::Contains(HasSubstr("prefillProfile has no effect")));
}

}  // namespace
}  // namespace llmd::sched
