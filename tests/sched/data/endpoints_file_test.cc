#include "plugins/data/endpoints_file.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "llmd/sched/config_loader.h"
#include "llmd/sched/director.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(EndpointsFile, ReadsYamlWithDefaults) {
  const auto eps = ParsePoolFile(
      "endpoints:\n- {name: a, address: 127.0.0.1, port: \"8000\", labels: {llm-d.ai/role: "
      "decode}}\n"
      "- {name: b, namespace: other, address: \"::1\", port: 8001}\n",
      "pool");
  ASSERT_TRUE(eps.ok()) << eps.status().ToString();
  EXPECT_EQ(eps->endpoints[0].FullName(), "pool/a");
  EXPECT_EQ(eps->endpoints[0].HostPort(), "127.0.0.1:8000");
  EXPECT_EQ(eps->endpoints[0].labels.at("llm-d.ai/role"), "decode");
  EXPECT_EQ(eps->endpoints[1].FullName(), "other/b");
  EXPECT_EQ(eps->endpoints[1].HostPort(), "[::1]:8001");
  EXPECT_TRUE(ParsePoolFile("endpoints: []", "d")->endpoints.empty());
  EXPECT_TRUE(ParsePoolFile("\xEF\xBB\xBF"
                            "endpoints: []",
                            "d")
                  .ok());
}

TEST(EndpointsFile, ThatThereAreNoneMustBeSaid) {
  for (const char* text : {"", " ", "\n", "# endpoints go here\n", "---\n", "endpoints:", "{}",
                           "endpoints: null", "endpoints: ~\n", "endpoints: # none\n",
                           "objectives: [{name: a, priority: 1}]", "endpoints: {}"}) {
    const StatusOr<PoolFile> file = ParsePoolFile(text, "d");
    ASSERT_FALSE(file.ok()) << text;
    EXPECT_THAT(file.status().message(), HasSubstr("expected a")) << text;
  }
}

// As an editor leaves it halfway.
TEST(EndpointsFile, NoBeginningOfAFileEmptiesThePool) {
  const std::string whole =
      "# pool\nobjectives: [{name: a, priority: 1}]\nendpoints:\n- name: a\n  address: 10.0.0.1\n"
      "  port: 1\n- {name: b, address: 10.0.0.2, port: 2}\n";
  for (size_t size = 0; size <= whole.size(); ++size) {
    const StatusOr<PoolFile> file = ParsePoolFile(whole.substr(0, size), "d");
    EXPECT_TRUE(!file.ok() || !file->endpoints.empty()) << whole.substr(0, size);
  }
}

TEST(EndpointsFile, ReportsAllErrors) {
  const auto eps = ParsePoolFile(
      "endpoints:\n- {name: a, address: \"1.2.3\", port: 0}\n- {address: 1.2.3.4, port: 80, "
      "colour: "
      "red}\n",
      "d");
  ASSERT_FALSE(eps.ok());
  EXPECT_THAT(eps.status().message(), AllOf(HasSubstr("got '1.2.3'"), HasSubstr("1 to 65535"),
                                            HasSubstr("expected a name"), HasSubstr("colour")));
  EXPECT_FALSE(ParsePoolFile("endpoints:\n- {name: a, address: 1.2.3.4, port: 1}\n- {name: a, "
                             "address: 1.2.3.4, port: 2}\n",
                             "d")
                   .ok());
}

TEST(EndpointsFile, TakesHostNamesAsTheyStand) {
  const auto file = ParsePoolFile(
      "endpoints: [{name: a, address: engine.svc, port: 1}, {name: b, address: "
      "\"fd00::7\", port: \"2\"}]",
      "d");
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(file->endpoints[0].address, "engine.svc");
  EXPECT_EQ(file->endpoints[1].HostPort(), "[fd00::7]:2");
  for (const char* bad : {"-x.y", "a b", "x/y", "1.2.3.4.5", "host:80", "[::1]", ""}) {
    EXPECT_FALSE(
        ParsePoolFile("endpoints: [{name: a, port: 1, address: \"" + std::string(bad) + "\"}]", "d")
            .ok())
        << bad;
  }
}

TEST(EndpointsFile, PortsMakeRanksAndALabelLeavesSomeOut) {
  const auto file = ParsePoolFile(R"(
endpoints:
- {name: dp, address: 10.0.0.1, ports: [8000, "8001", 8002]}
- {name: half, address: 10.0.0.2, ports: [8000, 8001, 8002], labels: {llm-d.ai/active-ports: "8002, 8000"}}
- {name: old, address: 10.0.0.3, ports: [8000, 8001], labels: {inference.networking.k8s.io/active-ports: "8001"}}
- {name: off, address: 10.0.0.4, port: 8000, labels: {llm-d.ai/active-ports: "9000"}}
)",
                                  "d");
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  std::vector<std::string> seen;
  for (const EndpointInfo& e : file->endpoints)
    seen.push_back(e.name + " " + std::to_string(e.port) + " " + std::to_string(e.rank));
  EXPECT_THAT(seen, ::testing::ElementsAre("dp-rank-0 8000 0", "dp-rank-1 8001 1",
                                           "dp-rank-2 8002 2", "half-rank-0 8000 0",
                                           "half-rank-2 8002 2", "old-rank-1 8001 1"));
}

TEST(EndpointsFile, RefusesPortsNamesAndLabelsThatCannotBe) {
  const auto message = [](const std::string& entry) {
    return ParsePoolFile("endpoints: [{address: 10.0.0.1, " + entry + "}]", "d").status().message();
  };
  EXPECT_THAT(message("name: a, port: 1, ports: [2]"), HasSubstr("not both"));
  EXPECT_THAT(message("name: a, ports: []"), HasSubstr("1 to 8 ports"));
  EXPECT_THAT(message("name: a, ports: [1,2,3,4,5,6,7,8,9]"), HasSubstr("1 to 8 ports"));
  EXPECT_THAT(message("name: a, ports: [7, \"7\"]"), HasSubstr("port 7 appears twice"));
  EXPECT_THAT(message("name: a, ports: [70000]"), HasSubstr("got '70000'"));
  EXPECT_THAT(message("name: a/b, port: 1"), HasSubstr("got 'a/b'"));
  EXPECT_THAT(message("name: a, namespace: \"x y\", port: 1"), HasSubstr("got 'x y'"));
  EXPECT_THAT(message("name: a, port: 1, labels: {\"a/b/c\": x}"),
              HasSubstr("'a/b/c' is no label name"));
  EXPECT_THAT(message("name: a, port: 1, labels: {x: \"\\u0001\"}"), HasSubstr("label value"));
  EXPECT_THAT(message("name: a, port: 1, labels: {x: [1]}"), HasSubstr("labels.x"));
  EXPECT_THAT(message("name: a, port: 1, labels: {llm-d.ai/active-ports: \"80,x\"}"),
              HasSubstr("got '80,x'"));
  EXPECT_THAT(ParsePoolFile("endpoints: [{name: a-rank-1, address: 10.0.0.1, port: 1}, {name: a, "
                            "address: 10.0.0.1, ports: [2, 3]}]",
                            "d")
                  .status()
                  .message(),
              HasSubstr("'d/a-rank-1' appears twice"));
}

TEST(EndpointsFile, DoubtsSharedPlacesAndUnknownRoles) {
  const auto file = ParsePoolFile(
      "endpoints: [{name: a, address: 10.0.0.1, port: 1}, {name: b, address: 10.0.0.1, port: 1, "
      "labels: {llm-d.ai/role: decoder}}]",
      "d");
  ASSERT_TRUE(file.ok());
  EXPECT_THAT(file->warnings, ::testing::ElementsAre(
                                  "endpoints 'd/a' and 'd/b' are both at 10.0.0.1:1",
                                  "endpoint 'd/b': 'decoder' is no role: no role filter keeps it"));
}

TEST(EndpointsFile, ReadsObjectivesAndRewrites) {
  const auto file = ParsePoolFile(R"(
endpoints: []
objectives: [{name: chat, priority: 10}, {name: batch, priority: -1}, {name: plain}]
rewrites:
- name: canary
  rules:
  - matches: [{model: {type: Exact, value: food}}, {model: {value: drink}}]
    targets: [{modelRewrite: food-v2, weight: 9}, {modelRewrite: food-v1, weight: 1}]
  - targets: [{modelRewrite: base}]
)",
                                  "d");
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(file->policy.PriorityOf("chat"), 10);
  EXPECT_EQ(file->policy.PriorityOf("batch"), -1);
  EXPECT_EQ(file->policy.PriorityOf("plain"), 0);
  EXPECT_EQ(file->policy.PriorityOf("unknown"), 0);
  EXPECT_EQ(file->policy.RuleFor("drink")->targets[0].model, "food-v2");
  EXPECT_EQ(file->policy.RuleFor("other")->targets[0].model, "base");
  EXPECT_EQ(file->policy.RuleFor("other")->rewrite, "canary");
}

TEST(EndpointsFile, ReportsAllErrorsOfThePolicy) {
  const auto file = ParsePoolFile(R"(
endpoints: []
objectives: [{name: a, priority: high}, {name: a}, {priority: 1}]
rewrites: [{name: r, rules: [{matches: [{model: {type: Prefix, value: x}}], targets: []},
                             {targets: [{modelRewrite: "", weight: 0}]}]}]
)",
                                  "d");
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(
      file.status().message(),
      AllOf(HasSubstr("priority"), HasSubstr("'a' appears twice"), HasSubstr("expected a name"),
            HasSubstr("expected one of Exact"), HasSubstr("at least one target"),
            HasSubstr("expected a model name"), HasSubstr("from 1 to 1000000")));
}

// A director over a watched file, and a wait with a deadline for its set of endpoints.
class FileDiscovery : public ::testing::Test {
 protected:
  FileDiscovery() {
    dir_ = std::filesystem::temp_directory_path() / ("llmd_fd_" + std::to_string(::getpid()));
    std::filesystem::create_directories(dir_);
    path_ = (dir_ / "endpoints.yaml").string();
  }
  ~FileDiscovery() override { std::filesystem::remove_all(dir_); }
  void Write(const std::string& text) {
    std::ofstream(path_ + ".tmp") << text;
    std::filesystem::rename(path_ + ".tmp", path_);
  }
  bool Becomes(const Director& d, size_t count) {
    for (int i = 0; i < 500; ++i) {
      if (d.Endpoints().size() == count) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::filesystem::path dir_;
  std::string path_;
  MetricsRegistry metrics_;
};

TEST_F(FileDiscovery, FollowsTheFileAndKeepsTheOldSetOnABadOne) {
  Write("endpoints: [{name: a, address: 127.0.0.1, port: 1}]");
  auto sink = std::make_shared<MemoryLogSink>();
  DirectorOptions options;
  options.config_yaml =
      Config({"{type: file-discovery, parameters: {path: " + path_ + ", watchFile: true}}"}) +
      "dataLayer: {discovery: {pluginRef: file-discovery}}\n";
  auto director =
      Director::Create(options, nullptr, Logger(sink, LogLevel::kDefault), metrics_, SystemClock());
  ASSERT_TRUE(director.ok()) << director.status().ToString();
  EXPECT_TRUE((*director)->ready());
  EXPECT_EQ((*director)->Endpoints().size(), 1u);
  Write(
      "endpoints: [{name: a, address: 127.0.0.1, port: 1}, {name: b, address: 127.0.0.1, port: "
      "2}]");
  EXPECT_TRUE(Becomes(**director, 2));
  Write("endpoints: {broken");
  bool told = false;
  for (int i = 0; i < 500 && !told; ++i) {
    for (const json::Value& line : sink->Lines())
      told = told || line["msg"].AsString().find("not reloaded") != std::string::npos;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(told);
  EXPECT_EQ((*director)->Endpoints().size(), 2u);
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("llm_d_epp_endpoints_file_reloads_total{result=\"failure\"}"));
  Write("# nothing yet\n");
  Write("endpoints: []");
  EXPECT_TRUE(Becomes(**director, 0));
  EXPECT_TRUE((*director)->ready()) << "it answers by itself";
  (*director)->Stop();
}

TEST_F(FileDiscovery, ResolvesHostNamesAndLeavesOutWhatCannotBe) {
  Write(
      "endpoints: [{name: a, address: localhost, port: 1}, {name: b, address: "
      "no-such-host.invalid, port: 2}]");
  auto sink = std::make_shared<MemoryLogSink>();
  DirectorOptions options;
  options.config_yaml =
      Config({"{type: file-discovery, parameters: {path: " + path_ + ", resolveInterval: 1h}}"}) +
      "dataLayer: {discovery: {pluginRef: file-discovery}}\n";
  auto director =
      Director::Create(options, nullptr, Logger(sink, LogLevel::kDefault), metrics_, SystemClock());
  ASSERT_TRUE(director.ok()) << director.status().ToString();
  ASSERT_EQ((*director)->Endpoints().size(), 1u);
  EXPECT_EQ((*director)->Endpoints()[0].address, "127.0.0.1");
  EXPECT_THAT(sink->Lines(), ::testing::Contains(::testing::ResultOf(
                                 [](const json::Value& line) { return line["error"].AsString(); },
                                 HasSubstr("no-such-host.invalid"))));
  (*director)->Stop();
}

TEST_F(FileDiscovery, AMissingFileIsAnErrorAtStart) {
  DirectorOptions options;
  options.config_yaml = Config({"{type: file-discovery, parameters: {path: " + path_ + "}}"}) +
                        "dataLayer: {discovery: {pluginRef: file-discovery}}\n";
  EXPECT_EQ(Director::Create(options, nullptr, Logger(), metrics_, SystemClock()).status().code(),
            StatusCode::kNotFound);
}

}  // namespace
}  // namespace llmd::sched
