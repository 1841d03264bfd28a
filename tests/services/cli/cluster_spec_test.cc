#include "cli/cluster_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace llmd::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Write(std::string_view text) {
  const std::string path = testing::TempDir() + "/cluster.yaml";
  std::ofstream(path) << text;
  return path;
}

ClusterSpec WithModel() {
  ClusterSpec spec;
  spec.model = Write("not read here");
  return spec;
}

TEST(ClusterSpec, DefaultsToOnePrefillAndTwoDecodeEngines) {
  ClusterSpec spec = WithModel();
  ASSERT_TRUE(Complete(spec, 8).ok());
  std::vector<std::string> names;
  std::vector<int> threads;
  for (const EngineSpec& e : spec.engines) {
    names.push_back(e.name);
    threads.push_back(e.threads);
  }
  EXPECT_THAT(names, ElementsAre("prefill-0", "decode-0", "decode-1"));
  EXPECT_THAT(threads, ElementsAre(3, 3, 2));
  EXPECT_EQ(spec.served_model_name, "cluster");
}

TEST(ClusterSpec, GivesEveryEngineAThreadWhenCoresAreFew) {
  ClusterSpec spec = WithModel();
  ASSERT_TRUE(Complete(spec, 2).ok());
  for (const EngineSpec& e : spec.engines) EXPECT_EQ(e.threads, 1);
}

TEST(ClusterSpec, LeavesNamedThreadsAloneAndSharesTheRest) {
  ClusterSpec spec = WithModel();
  spec.engines = {{"a", "decode", 3, 0, {}}, {"b", "decode", 0, 0, {}}};
  ASSERT_TRUE(Complete(spec, 8).ok());
  EXPECT_EQ(spec.engines[0].threads, 3);
  EXPECT_EQ(spec.engines[1].threads, 5);
}

TEST(ClusterSpec, ReadsADocument) {
  const auto spec =
      ParseCluster(Write("apiVersion: llm-d.ai/v1alpha1\nkind: LlmdCluster\nname: demo\nmodel: "
                         "m.gguf\ngateway: {port: 9000}\ntransport: tcp\n"
                         "epp: {configFile: picker.yaml}\nengines:\n- {name: p, role: prefill, "
                         "threads: 2, kvCacheBytes: 64Mi}\n"
                         "- {role: decode, args: [--max-num-seqs, '8']}\n"));
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->name, "demo");
  EXPECT_EQ(spec->gateway_port, 9000);
  EXPECT_EQ(spec->transport, "tcp");
  EXPECT_TRUE(spec->picker_process);
  EXPECT_EQ(spec->config_file, "picker.yaml");
  ASSERT_EQ(spec->engines.size(), 2u);
  EXPECT_EQ(spec->engines[0].kv_cache_bytes, 64 << 20);
  EXPECT_THAT(spec->engines[1].args, ElementsAre("--max-num-seqs", "8"));
}

TEST(ClusterSpec, SaysWhoDecides) {
  const auto gateway = ParseCluster(Write("kind: LlmdCluster\ngateway: {configFile: own.yaml}\n"));
  ASSERT_TRUE(gateway.ok()) << gateway.status().ToString();
  EXPECT_FALSE(gateway->picker_process);
  EXPECT_EQ(gateway->config_file, "own.yaml");
  const auto picker = ParseCluster(Write("kind: LlmdCluster\nepp: {}\n"));
  ASSERT_TRUE(picker.ok()) << picker.status().ToString();
  EXPECT_TRUE(picker->picker_process);
}

struct BadCase {
  const char* yaml;
  const char* message;
};
class ClusterSpecErrors : public testing::TestWithParam<BadCase> {};

TEST_P(ClusterSpecErrors, NameTheKey) {
  const auto spec = ParseCluster(Write(GetParam().yaml));
  ASSERT_FALSE(spec.ok());
  EXPECT_THAT(spec.status().message(), HasSubstr(GetParam().message));
}
INSTANTIATE_TEST_SUITE_P(
    Table, ClusterSpecErrors,
    testing::Values(BadCase{"kind: Pod\n", "expected LlmdCluster"},
                    BadCase{"kind: LlmdCluster\nmodle: x\n", "modle"},
                    BadCase{"kind: LlmdCluster\nengines: [{role: chef}]\n",
                            "expected decode, prefill or both, got 'chef'"},
                    BadCase{"kind: LlmdCluster\nengines: [{role: decode, threads: many}]\n",
                            "engines[0].threads"},
                    BadCase{"kind: LlmdCluster\ngateway: {port: 70000}\n", "expected a port"},
                    BadCase{"kind: LlmdCluster\ngateway: {configFile: a}\nepp: {}\n",
                            "give epp.configFile"},
                    BadCase{"kind: LlmdCluster\napiVersion: v9\n", "expected llm-d.ai/v1alpha1"}));

TEST(ClusterSpec, RefusesWhatCannotRun) {
  ClusterSpec none;
  EXPECT_THAT(Complete(none, 2).message(), HasSubstr("no model"));
  none.model = "/does/not/exist.gguf";
  EXPECT_THAT(Complete(none, 2).message(), HasSubstr("does not exist"));
  ClusterSpec twice = WithModel();
  twice.engines = {{"a", "decode", 0, 0, {}}, {"a", "decode", 0, 0, {}}};
  EXPECT_THAT(Complete(twice, 2).message(), HasSubstr("two engines are called 'a'"));
  ClusterSpec prefill_only = WithModel();
  prefill_only.engines = {{"", "prefill", 0, 0, {}}};
  EXPECT_THAT(Complete(prefill_only, 2).message(), HasSubstr("no engine decodes"));
  ClusterSpec lane = WithModel();
  lane.transport = "pigeon";
  EXPECT_THAT(Complete(lane, 2).message(), HasSubstr("expected auto, memfd or tcp"));
}

}  // namespace
}  // namespace llmd::cli
