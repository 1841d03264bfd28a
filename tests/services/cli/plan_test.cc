#include "cli/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "llmd/config.h"

namespace llmd::cli {
namespace {

using testing::Contains;
using testing::HasSubstr;

ClusterSpec Spec() {
  ClusterSpec spec;
  spec.model = "/m/model.gguf";
  spec.served_model_name = "model";
  spec.engines = {{"prefill-0", "prefill", 1, 64 << 20, {}},
                  {"decode-0", "decode", 1, 64 << 20, {"--max-num-seqs", "4"}},
                  {"decode-1", "decode", 2, 64 << 20, {}}};
  return spec;
}

uint16_t AsWanted(uint16_t wanted) {
  return wanted;
}

const ProcessPlan& Find(const ClusterPlan& plan, std::string_view name) {
  return *std::find_if(plan.processes.begin(), plan.processes.end(),
                       [&](const ProcessPlan& p) { return p.name == name; });
}

std::string After(const ProcessPlan& process, std::string_view flag) {
  const auto it = std::find(process.argv.begin(), process.argv.end(), flag);
  return it == process.argv.end() ? "" : *(it + 1);
}

ClusterSpec WithPicker() {
  ClusterSpec spec = Spec();
  spec.picker_process = true;
  return spec;
}

TEST(Plan, StartsEnginesThenSidecarsThenTheGateway) {
  const auto plan = MakePlan(Spec(), "/bin", "/run", AsWanted);
  ASSERT_TRUE(plan.ok());
  std::vector<std::string> names;
  for (const ProcessPlan& p : plan->processes) names.push_back(p.name);
  EXPECT_THAT(names, testing::ElementsAre("prefill-0", "decode-0", "decode-1", "decode-0-sidecar",
                                          "decode-1-sidecar", "gateway"));
}

TEST(Plan, StartsAPickerOfItsOwnWhenAsked) {
  const auto plan = MakePlan(WithPicker(), "/bin", "/run", AsWanted);
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->processes.size(), 7u);
  EXPECT_EQ(plan->processes[5].name, "epp");
  EXPECT_EQ(After(Find(*plan, "gateway"), "--epp"), "127.0.0.1:9002");
  EXPECT_EQ(After(Find(*plan, "gateway"), "--config-file"), "");
  EXPECT_EQ(plan->Summary(), "3 engines, 2 sidecars, a picker and a gateway for model");
}

TEST(Plan, UsesTheFieldsPorts) {
  const auto plan = MakePlan(Spec(), "/bin", "/run", AsWanted);
  EXPECT_EQ(Find(*plan, "gateway").health_port, 8000);
  EXPECT_EQ(Find(*plan, "prefill-0").health_port, 8200);
  EXPECT_EQ(Find(*plan, "decode-0-sidecar").health_port, 8101);
  EXPECT_EQ(After(Find(*plan, "decode-0-sidecar"), "--model-server-port"), "8201");
  EXPECT_EQ(After(Find(*plan, "gateway"), "--metrics-port"), "9090");
  EXPECT_EQ(After(Find(*plan, "gateway"), "--config-file"), "/run/scheduling.yaml");
}

TEST(Plan, EveryPortIsOnThisMachineOnly) {
  const auto plan = MakePlan(WithPicker(), "/bin", "/run", AsWanted);
  for (const ProcessPlan& p : plan->processes) {
    if (p.role != "epp") EXPECT_EQ(After(p, "--host"), "127.0.0.1") << p.name;
  }
  const auto alone = MakePlan(Spec(), "/bin", "/run", AsWanted);
  EXPECT_EQ(After(Find(*alone, "gateway"), "--metrics-host"), "127.0.0.1");
  EXPECT_EQ(After(Find(*plan, "epp"), "--grpc-host"), "127.0.0.1");
  EXPECT_EQ(After(Find(*plan, "epp"), "--metrics-host"), "127.0.0.1");
}

TEST(Plan, SaysInAFewWordsWhatItStarts) {
  EXPECT_EQ(MakePlan(Spec(), "/bin", "/run", AsWanted)->Summary(),
            "3 engines, 2 sidecars and a gateway for model");
}

TEST(Plan, PassesThreadsMemoryAndExtraArguments) {
  const auto plan = MakePlan(Spec(), "/bin", "/run", AsWanted);
  EXPECT_EQ(After(Find(*plan, "decode-1"), "--threads"), "2");
  EXPECT_EQ(After(Find(*plan, "decode-1"), "--kv-cache-memory-bytes"), std::to_string(64 << 20));
  EXPECT_EQ(After(Find(*plan, "decode-0"), "--max-num-seqs"), "4");
  EXPECT_THAT(Find(*plan, "decode-0").environment, Contains("VLLM_NIXL_SIDE_CHANNEL_PORT=5601"));
}

TEST(Plan, WritesEndpointsThatPointAtSidecarsForDecode) {
  const auto plan = MakePlan(Spec(), "/bin", "/run", AsWanted);
  ASSERT_EQ(plan->files[0].first, "/run/endpoints.yaml");
  const auto root = config::Parse(plan->files[0].second);
  ASSERT_TRUE(root.ok()) << root.status().ToString();
  const auto endpoints = root->Get("endpoints").Items();
  ASSERT_EQ(endpoints.size(), 3u);
  EXPECT_EQ(*endpoints[0].Get("port").String(), "8200");
  EXPECT_EQ(*endpoints[0].Get("labels").Get("llm-d.ai/role").String(), "prefill");
  EXPECT_EQ(*endpoints[1].Get("port").String(), "8101");
}

TEST(Plan, ConfiguresDisaggregationOnlyWithAPrefillEngine) {
  const auto with = MakePlan(Spec(), "/bin", "/run", AsWanted);
  EXPECT_THAT(with->files[1].second, HasSubstr("disagg-profile-handler"));
  ClusterSpec spec = Spec();
  spec.engines.erase(spec.engines.begin());
  const auto without = MakePlan(spec, "/bin", "/run", AsWanted);
  EXPECT_THAT(without->files[1].second, testing::Not(HasSubstr("disagg-profile-handler")));
  ASSERT_TRUE(config::Parse(without->files[1].second).ok());
}

TEST(Plan, KeepsAPickerConfigurationOfTheUser) {
  for (ClusterSpec spec : {Spec(), WithPicker()}) {
    spec.config_file = "/etc/picker.yaml";
    const auto plan = MakePlan(spec, "/bin", "/run", AsWanted);
    EXPECT_EQ(plan->files.size(), 1u);
    EXPECT_EQ(After(Find(*plan, spec.picker_process ? "epp" : "gateway"), "--config-file"),
              "/etc/picker.yaml");
  }
}

TEST(Plan, RefusesATakenGatewayPort) {
  const auto plan = MakePlan(Spec(), "/bin", "/run", [](uint16_t) { return uint16_t{4242}; });
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.status().message(), HasSubstr("8000 is in use"));
}

TEST(FreePorts, NeverGivesAPortTwice) {
  const PortPicker pick = FreePorts();
  std::set<uint16_t> seen;
  for (int i = 0; i < 50; ++i) {
    const uint16_t port = pick(0);
    ASSERT_NE(port, 0);
    EXPECT_TRUE(seen.insert(port).second);
  }
  const uint16_t taken = *seen.begin();
  EXPECT_NE(pick(taken), taken);
}

TEST(Plan, RunFileNamesPortsAndRoles) {
  const auto plan = MakePlan(Spec(), "/bin", "/run", AsWanted);
  const json::Value run = plan->RunFile();
  EXPECT_EQ(run["gatewayPort"].AsInt(), 8000);
  EXPECT_EQ(run["adminPort"].AsInt(), 9090);
  EXPECT_EQ(run["processes"].AsArray().size(), 6u);
}

}  // namespace
}  // namespace llmd::cli
