#include "cli/bench/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cli/bench/flags.h"
#include "cli/bench/profile.h"
#include "support/paths.h"

namespace llmd::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseLengths, AllForms) {
  EXPECT_EQ(ParseLengths("512")->max, 512u);
  EXPECT_EQ(ParseLengths("uniform:3:9")->min, 3u);
  const Lengths normal = *ParseLengths("normal:100:10");
  EXPECT_EQ(normal.min, 1u);
  EXPECT_EQ(normal.max, 140u);
  EXPECT_EQ(ParseLengths("normal:100:10:90:95")->max, 95u);
  for (const char* bad : {"", "-1", "x", "1.5", "uniform:5", "uniform:9:3", "normal:1", "gamma:1:2",
                          "normal:1:2:5:4", "99999999999", "nan"}) {
    EXPECT_FALSE(ParseLengths(bad).ok()) << bad;
  }
}

TEST(ParseStage, AllForms) {
  const Stage open = *ParseStage("rate=2.5,duration=30s");
  EXPECT_EQ(open.rate, 2.5);
  EXPECT_EQ(open.duration, seconds(30));
  const Stage closed = *ParseStage("concurrency=8,requests=100");
  EXPECT_EQ(closed.concurrency, 8);
  EXPECT_EQ(closed.requests, 100u);
  for (const char* bad : {"", "rate=0,duration=1s", "rate=1,concurrency=1", "duration=1s",
                          "rate=1,duration=1", "rate=1,colour=red", "concurrency=1.5", "rate"}) {
    EXPECT_FALSE(ParseStage(bad).ok()) << bad;
  }
}

TEST(ParseSlo, UnitsAndBareMilliseconds) {
  const Slo slo = *ParseSlo("ttft:500ms,tpot:50,e2e:2s");
  EXPECT_EQ(slo.ttft, milliseconds(500));
  EXPECT_EQ(slo.tpot, milliseconds(50));
  EXPECT_EQ(slo.e2e, seconds(2));
  for (const char* bad : {"", "ttft", "ttft:", "ttft:0", "latency:5ms", "ttft:-5ms"}) {
    EXPECT_FALSE(ParseSlo(bad).ok()) << bad;
  }
}

TEST(ParseTenant, AllParts) {
  const Tenant t =
      *ParseTenant("name=a,weight=3,model=m,fairness-id=f,api-key=sk-1:=x,header=X-A: b:c");
  EXPECT_EQ(t.name, "a");
  EXPECT_EQ(t.weight, 3);
  EXPECT_EQ(t.model, "m");
  EXPECT_EQ(t.headers.Get("x-llm-d-inference-fairness-id"), "f");
  EXPECT_EQ(t.headers.Get("authorization"), "Bearer sk-1:=x");
  EXPECT_EQ(t.headers.Get("x-a"), "b:c");
  for (const char* bad :
       {"weight=1", "name=a,weight=0", "name=a,colour=red", "name=a,header=Host:x",
        "name=a,header=no", "name=a,header=B\x01: c", "name=a,api-key-file=/nowhere"}) {
    EXPECT_FALSE(ParseTenant(bad).ok()) << bad;
  }
}

CommandLine Read(std::vector<const char*> words) {
  words.insert(words.begin(), "bench");
  return ReadCommandLine(static_cast<int>(words.size()), words.data());
}

std::string Refusal(std::vector<const char*> words) {
  ::testing::internal::CaptureStderr();
  const CommandLine line = Read(std::move(words));
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(line.exit) << text;
  EXPECT_EQ(line.code, 2) << text;
  return text;
}

TEST(CommandLine, OpenClosedAndStages) {
  const Options open =
      Read({"--target", "http://a:1", "--rate=5", "--arrivals=poisson", "--duration=10s"}).options;
  EXPECT_EQ(open.load, Options::Load::kPoisson);
  EXPECT_EQ(open.stages[0].rate, 5);
  const Options closed =
      Read({"--target", "http://a:1", "--target", "http://b:2", "--concurrency=5", "--requests=10"})
          .options;
  EXPECT_EQ(closed.load, Options::Load::kClosed);
  EXPECT_EQ(closed.targets.size(), 2u);
  EXPECT_EQ(closed.stages[0].requests, 10u);
  const Options stages =
      Read({"--target", "http://a:1", "--stage=rate=1,duration=1s", "--stage=rate=2,duration=1s"})
          .options;
  EXPECT_EQ(stages.stages.size(), 2u);
  const Options raw =
      Read({"--target", "http://a:1", "--api=raw", "--concurrency=1", "--requests=1"}).options;
  EXPECT_EQ(raw.method, "GET");
}

TEST(CommandLine, RefusesByName) {
  const char* t = "--target=http://a:1";
  EXPECT_THAT(Refusal({t}), HasSubstr("what load?"));
  EXPECT_THAT(Refusal({"--rate=1", "--duration=1s"}), HasSubstr("--target"));
  EXPECT_THAT(Refusal({t, "--rate=1"}), HasSubstr("--duration or --requests"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--concurrency=1", "--requests=1"}),
              HasSubstr("exclude each other"));
  EXPECT_THAT(Refusal({t, "--rate=0", "--requests=1"}), HasSubstr("rate is above 0"));
  EXPECT_THAT(Refusal({t, "--concurrency=20000", "--requests=1"}), HasSubstr("--max-connections"));
  EXPECT_THAT(Refusal({t, "--stage=rate=1,requests=1", "--stage=concurrency=1,requests=1"}),
              HasSubstr("do not mix"));
  EXPECT_THAT(Refusal({"--target=a:1", "--rate=1", "--requests=1"}), HasSubstr("--target"));
  EXPECT_THAT(Refusal({t, "--api=grpc", "--rate=1", "--requests=1"}),
              HasSubstr("chat, completion"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--method=PUT"}), HasSubstr("--api raw"));
  EXPECT_THAT(Refusal({t, "--api=raw", "--turns=2", "--rate=1", "--requests=1"}),
              HasSubstr("--turns"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--arrivals=weibull"}),
              HasSubstr("--arrivals"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--watch-pid=nginx"}), HasSubstr("NAME=PID"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--prefix-groups=3"}),
              HasSubstr("--prefix-tokens"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--percentiles=50,101"}),
              HasSubstr("--percentiles"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--profile=/nowhere.yaml"}),
              HasSubstr("/nowhere.yaml"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--header=Host: x"}), HasSubstr("Host"));
  EXPECT_THAT(Refusal({"--target=https://a", "--rate=1", "--requests=1", "--tls-ca=/nowhere.pem"}),
              HasSubstr("/nowhere.pem"));
  EXPECT_THAT(Refusal({t, "--rate=1", "--requests=1", "--conections=3"}), HasSubstr("conections"));
}

TEST(CommandLine, FlagsThatWouldChangeNothingAreRefused) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{"--concurrency=1", "--arrivals=poisson"}, "--arrivals needs an open loop"},
      {{"--rate=1", "--stage-pause=1s"}, "--stage-pause needs"},
      {{"--rate=1", "--think-time=1s"}, "--think-time needs --turns"},
      {{"--rate=1", "--speed=2"}, "--speed needs --trace"},
      {{"--trace=t.csv", "--prompt-tokens=5"}, "--prompt-tokens needs"},
      {{"--trace=t.csv", "--output-tokens=5"}, "--output-tokens needs"},
      {{"--rate=1", "--prefix-tokens=5"}, "--prefix-tokens needs --prefix-groups"},
      {{"--rate=1", "--prefix-groups=2", "--prefix-tokens=5", "--prefix-prompts=2",
        "--distinct-prompts=3"},
       "--distinct-prompts needs"},
      {{"--rate=1", "--api=raw", "--model=m"}, "--model needs"},
      {{"--rate=1", "--no-stream", "--no-usage"}, "--usage needs --stream"},
      {{"--rate=1", "--no-tls-verify"}, "--tls-verify needs a target with https"},
  };
  for (const auto& [words, said] : cases) {
    std::vector<const char*> all = {"--target=http://a:1", "--requests=1"};
    all.insert(all.end(), words.begin(), words.end());
    EXPECT_THAT(Refusal(all), HasSubstr(said));
  }
}

const std::string kProfile = "tests/data/bench/profile.yaml";

TEST(Profile, IsReadWhole) {
  const auto o = LoadProfile(testing::SourcePath(kProfile), {});
  ASSERT_TRUE(o.ok()) << o.status().ToString();
  EXPECT_EQ(o->api, Api::kChat);
  EXPECT_TRUE(o->stream);
  EXPECT_EQ(o->headers.Get("x-slo-ttft-ms"), "500");
  EXPECT_EQ(o->slo.ttft, milliseconds(500));
  EXPECT_EQ(o->slo.tpot, milliseconds(50));
  EXPECT_EQ(o->shared.groups, 3u);
  EXPECT_EQ(o->shared.prompts_per_group, 4u);
  EXPECT_EQ(o->shared.system_tokens, 40u);
  EXPECT_EQ(o->prompt.min, 8u);
  EXPECT_EQ(o->output.min, 5u);
  EXPECT_EQ(o->load, Options::Load::kPoisson);
  EXPECT_EQ(o->stage_pause, milliseconds(100));
  EXPECT_EQ(o->seed, 11u);
  EXPECT_EQ(o->threads, 2);
  EXPECT_EQ(o->max_connections, 100);
  EXPECT_EQ(o->timeout, seconds(20));
  ASSERT_EQ(o->stages.size(), 2u);
  EXPECT_EQ(o->stages[1].rate, 100);
  EXPECT_EQ(o->stages[1].duration, milliseconds(500));
  EXPECT_EQ(o->model, "m");
  EXPECT_EQ(o->targets[0].peer.port, 8000);
  EXPECT_FALSE(o->ignore_eos);
  EXPECT_THAT(o->percentiles, ElementsAre(50, 99));
}

TEST(Profile, FlagsGoAboveIt) {
  const std::string path = testing::SourcePath(kProfile);
  const Options o = Read({"--profile", path.c_str(), "--target=http://b:9", "--seed=3",
                          "--duration=200ms", "--model=x"})
                        .options;
  EXPECT_EQ(o.targets.size(), 1u);
  EXPECT_EQ(o.targets[0].peer.host, "b");
  EXPECT_EQ(o.seed, 3u);
  EXPECT_EQ(o.model, "x");
  EXPECT_EQ(o.stages[1].duration, milliseconds(200));
  EXPECT_EQ(o.stages[1].rate, 100);
  EXPECT_EQ(o.load, Options::Load::kPoisson);
}

class ProfileText : public ::testing::Test {
 protected:
  StatusOr<Options> Load(const std::string& text, const std::vector<std::string>& without = {}) {
    path_ = (std::filesystem::temp_directory_path() /
             ("llmd-profile-" + std::to_string(getpid()) + ".yaml"))
                .string();
    std::ofstream(path_) << text;
    return LoadProfile(path_, without);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_;
};

const std::string kMinimal =
    "load: {type: constant, stages: [{rate: 1, duration: 30}]}\n"
    "data: {type: random, input_distribution: {min: 1, max: 9, mean: 5, std_dev: 1}}\n"
    "server: {base_url: 'http://0.0.0.0:8000'}\n";

TEST_F(ProfileText, DefaultsAreInferencePerfs) {
  const auto o = Load(kMinimal);
  ASSERT_TRUE(o.ok()) << o.status().ToString();
  EXPECT_EQ(o->api, Api::kCompletion);
  EXPECT_FALSE(o->stream);
  EXPECT_TRUE(o->ignore_eos);
  EXPECT_EQ(o->stage_pause, seconds(1));
  EXPECT_EQ(o->prompt.max, 9u);
}

TEST_F(ProfileText, OtherKindsOfLoad) {
  auto o = Load(
      "load: {type: concurrent, stages: [{concurrency_level: 3, num_requests: 40}],\n"
      "  lora_traffic_split: [{name: a, split: 0.25}, {name: b, split: 0.75}]}\n"
      "data: {type: synthetic, input_distribution: {type: fixed, mean: 7, total_count: 5},\n"
      "  output_distribution: {type: uniform, min: 2, max: 4, std: 1, total_count: 5}}\n");
  ASSERT_TRUE(o.ok()) << o.status().ToString();
  EXPECT_EQ(o->load, Options::Load::kClosed);
  EXPECT_EQ(o->stages[0].concurrency, 3);
  EXPECT_EQ(o->stages[0].requests, 40u);
  EXPECT_EQ(o->tenants[1].model, "b");
  EXPECT_EQ(o->tenants[1].weight, 0.75);
  EXPECT_EQ(o->prompt.max, 7u);
  EXPECT_EQ(o->output.kind, Lengths::Kind::kUniform);
  EXPECT_EQ(o->distinct_prompts, 5u);
  o = Load("load: {type: trace_replay, trace: {file: t.csv}}\n");
  ASSERT_TRUE(o.ok()) << o.status().ToString();
  EXPECT_EQ(o->load, Options::Load::kTrace);
  EXPECT_EQ(o->trace, (std::filesystem::temp_directory_path() / "t.csv").string());
  EXPECT_EQ(o->trace_format, "azure");
}

TEST_F(ProfileText, StorageNamesTheReports) {
  const auto o = Load(kMinimal + "storage: {local_storage: {path: out, report_file_prefix: a-}}\n");
  ASSERT_TRUE(o.ok()) << o.status().ToString();
  EXPECT_EQ(o->json_path, "out/a-llmd-bench.json");
  EXPECT_EQ(o->svg_path, "out/a-llmd-bench.svg");
}

TEST_F(ProfileText, WhatIsNotUnderstoodIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"tokenizer: {pretrained_model_name_or_path: x}\n", "tokenizer"},
      {"metrics: {type: prometheus}\n", "metrics"},
      {"circuit_breakers: []\n", "circuit_breakers"},
      {"api: {type: chat, response_format: {}}\n", "api.response_format"},
      {"api: {type: anthropic_messages}\n", "api.type"},
      {"api: {headers: {Host: x}}\n", "api.headers.Host"},
      {"api: {headers: {x-slo-ttft-ms: soon}}\n", "x-slo-ttft-ms"},
      {"report: {request_lifecycle: {per_request: true}}\n", "per_request"},
      {"report: {prometheus: {summary: true}}\n", "report.prometheus"},
      {"storage: {google_cloud_storage: {bucket_name: b}}\n", "storage"},
      {"colour: red\n", "colour"},
  };
  for (const auto& [more, name] : cases) {
    const auto o = Load(kMinimal + more);
    ASSERT_FALSE(o.ok()) << more;
    EXPECT_THAT(o.status().message(), HasSubstr(name));
    EXPECT_THAT(o.status().message(), HasSubstr(path_));
    EXPECT_THAT(o.status().message(), HasSubstr("line "));
  }
  EXPECT_TRUE(
      Load(kMinimal + "tokenizer: {x: y}\nmetrics: {z: 1}\n", {"tokenizer", "metrics"}).ok());
  EXPECT_THAT(Load(kMinimal, {"tokenizer"}).status().message(), HasSubstr("no such section"));
}

TEST_F(ProfileText, RefusesBadLoadAndData) {
  const std::pair<const char*, const char*> cases[] = {
      {"load: {type: weibull}\ndata: {type: random}\n", "load.type"},
      {"load: {type: constant}\ndata: {type: random}\n", "stages"},
      {"load: {stages: [{rate: 1}]}\ndata: {type: random}\n", "load.stages[0]"},
      {"load: {stages: [{rate: 1, duration: 1, num_requests: 4}]}\ndata: {type: random}\n",
       "num_requests"},
      {"load: {type: concurrent, stages: [{rate: 1, duration: 1}]}\ndata: {type: random}\n",
       "concurrency_level"},
      {"load: {sweep: {type: linear}, stages: [{rate: 1, duration: 1}]}\ndata: {type: random}\n",
       "load.sweep"},
      {"load: {stages: [{rate: 1, duration: 1}]}\ndata: {type: shareGPT}\n", "data.type"},
      {"load: {stages: [{rate: 1, duration: 1}]}\n"
       "data: {type: random, input_distribution: {min: 9, max: 1}}\n",
       "min is above max"},
      {"load: {stages: [{rate: 1, duration: 1}]}\n"
       "data: {type: shared_prefix, shared_prefix: {enable_multi_turn_chat: true}}\n",
       "enable_multi_turn_chat"},
      {"load: {type: trace_replay, trace: {file: x, format: Parquet}}\n", "trace.format"},
  };
  for (const auto& [text, name] : cases) {
    const auto o = Load(text);
    ASSERT_FALSE(o.ok()) << text;
    EXPECT_THAT(o.status().message(), HasSubstr(name));
  }
}

}  // namespace
}  // namespace llmd::bench
