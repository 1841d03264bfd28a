#include "llmd/sched/pools.h"

#include <deque>
#include <set>

#include "llmd/sched/decision_tries.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kPools[] = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerPools
defaultPool: chat
pools:
- {name: chat, configFile: chat.yaml, models: ["llama-*"]}
- {name: code, configFile: /etc/code.yaml, hosts: [code.example.com], models: [coder]}
)";

TEST(ParsePools, ReadsRulesAndResolvesFiles) {
  const auto config = ParsePools(kPools, "/conf");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->default_pool, "chat");
  ASSERT_THAT(config->pools, SizeIs(2));
  EXPECT_EQ(config->pools[0].config_path, "/conf/chat.yaml");
  EXPECT_EQ(config->pools[1].config_path, "/etc/code.yaml");
  EXPECT_THAT(config->pools[1].hosts, ElementsAre("code.example.com"));
}

TEST(ParsePools, TellsEveryFault) {
  const std::string error = std::string(ParsePools(R"(apiVersion: v1
kind: EndpointPickerPools
defaultPool: none
pools:
- {name: a, configFile: a.yaml, models: [m], colour: red}
- {name: a, models: [m]}
)",
                                                   "")
                                            .status()
                                            .message());
  for (const char* part :
       {"apiVersion: expected llm-d.ai/v1alpha1", "no pool is called 'none'", "colour: unknown key",
        "already called 'a'", "takes 'm' already", "configFile"}) {
    EXPECT_THAT(error, HasSubstr(part));
  }
  EXPECT_FALSE(ParsePools("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerPools\n", "").ok());
}

class PoolSetTest : public ::testing::Test {
 protected:
  // Pools with one endpoint each: chat on port 1, code on port 2.
  void SetUp() override { Make("chat"); }
  void Make(const std::string& default_pool) {
    set_.reset();
    std::vector<PoolSet::Member> members;
    const PoolsConfig config = *ParsePools(kPools, "");
    for (size_t i = 0; i < config.pools.size(); ++i)
      members.push_back({config.pools[i], Pool(config.pools[i].name, static_cast<int>(i) + 1)});
    set_ = PoolSet::Create(std::move(members), default_pool, metrics_);
  }
  ~PoolSetTest() override {
    if (set_) set_->Stop();
    for (const std::string& path : paths_) std::filesystem::remove(path);
  }
  std::unique_ptr<Director> Pool(const std::string& name, int port) {
    paths_.push_back((std::filesystem::temp_directory_path() /
                      ("llmd_pool_" + std::to_string(::getpid()) + "_" + name))
                         .string());
    std::ofstream(paths_.back()) << "endpoints: [{name: e, address: 127.0.0.1, port: " << port
                                 << "}]";
    DirectorOptions options;
    options.pool_name = name;
    options.label_pool = true;
    options.config_yaml =
        Config({"{type: queue-scorer}",
                "{type: file-discovery, parameters: {path: " + paths_.back() + "}}"}) +
        "dataLayer: {injectDefaults: false, discovery: {pluginRef: file-discovery}}\n";
    registries_.push_back(std::make_unique<MetricsRegistry>(SystemClock(), Labels{{"pool", name}}));
    auto director = Director::Create(options, nullptr, Logger(), *registries_.back(), clock_);
    EXPECT_TRUE(director.ok()) << director.status().ToString();
    return std::move(*director);
  }
  Routing Route(const std::string& model, HeaderList headers = {}, std::string pool = "") {
    body_ = R"({"prompt":"x","model":")" + model + "\"}";
    headers_ = std::move(headers);
    headers_.emplace_back(":path", "/v1/completions");
    RequestInput input;
    input.headers = &headers_;
    input.body = body_;
    input.pool = std::move(pool);
    Routing out;
    set_->Route(std::move(input), [&](Routing r) { out = std::move(r); });
    return out;
  }
  std::string Port(const Routing& r) const {
    return r.ok ? r.endpoints[0].substr(r.endpoints[0].find(':') + 1) : r.denial.message;
  }
  MetricsRegistry metrics_;
  std::vector<std::unique_ptr<MetricsRegistry>> registries_;
  FakeClock clock_;
  std::vector<std::string> paths_;
  std::string body_;
  HeaderList headers_;
  std::unique_ptr<PoolSet> set_;
};

TEST_F(PoolSetTest, ChoosesByNameThenHostThenModelThenDefault) {
  EXPECT_EQ(Port(Route("coder", {{":authority", "code.example.com"}}, "chat")), "1");
  EXPECT_EQ(Port(Route("llama-8b", {{"x-llm-d-pool", "code"}})), "2");
  EXPECT_EQ(Port(Route("llama-8b", {{":authority", "Code.Example.com:8080"}})), "2");
  EXPECT_EQ(Port(Route("coder")), "2");
  EXPECT_EQ(Port(Route("llama-8b")), "1");
  EXPECT_EQ(Port(Route("other")), "1");
}

TEST_F(PoolSetTest, RefusesWhatNobodyTakes) {
  const Routing unknown = Route("coder", {}, "none");
  EXPECT_EQ(unknown.denial.http_status, 404);
  EXPECT_EQ(unknown.denial.message, "no pool is called 'none'");
  EXPECT_FALSE(unknown.request_id.empty());
  Make("");
  EXPECT_EQ(Route("other").denial.message, "no pool serves the model 'other'");
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_requests_without_pool_total 2.0"));
}

TEST_F(PoolSetTest, TheAnswerGoesToThePoolThatRouted) {
  const Routing r = Route("coder", {{"x-request-id", "id"}});
  EXPECT_THAT(r.remove_headers, ElementsAre());
  std::string replaced;
  set_->OnResponseHeaders(r.state, 200, {});
  set_->OnResponseBody(r.state, "{}", true, &replaced);
  const std::string page =
      MetricsRegistry::ExposeTogether({registries_[0].get(), registries_[1].get()});
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_running{fairness_id=\"default-flow\",model_name="
                              "\"coder\",pool=\"code\""));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_ready_endpoints{name=\"chat\",pool=\"chat\"} 1.0"));
  EXPECT_THAT(*set_->Explain("id"), HasSubstr("\"pool\":\"code\""));
}

TEST_F(PoolSetTest, ExplainsTheTriesOfAllPoolsByTime) {
  for (const char* model : {"coder", "llama-1", "coder"}) {
    Route(model, {{"x-request-id", "again"}});
    clock_.Advance(std::chrono::seconds(1));
  }
  const auto tries = TriesFromJson(*json::Parse(*set_->Explain("again")));
  ASSERT_TRUE(tries.ok()) << tries.status().ToString();
  ASSERT_THAT(*tries, SizeIs(3));
  EXPECT_EQ((*tries)[0].pool, "code");
  EXPECT_EQ((*tries)[1].pool, "chat");
  EXPECT_EQ((*tries)[2].pool, "code");
  EXPECT_FALSE(set_->Explain("never").ok());
}

TEST_F(PoolSetTest, ListsTheDecisionsOfAll) {
  Route("coder", {{"x-request-id", "first"}});
  clock_.Advance(std::chrono::seconds(1));
  Route("llama-1", {{"x-request-id", "second"}});
  const json::Value list = set_->Decisions(10);
  ASSERT_THAT(list.AsArray(), SizeIs(2));
  EXPECT_EQ(list.AsArray()[0]["pool"].AsString(), "chat");
  EXPECT_EQ(list.AsArray()[1]["pool"].AsString(), "code");
  EXPECT_THAT(set_->Decisions(1).AsArray(), SizeIs(1));
}

class PoolsByHand : public ::testing::Test {
 protected:
  ~PoolsByHand() override { set_.reset(); }
  // Two pools of one endpoint e each that takes one request at a time.
  void Make() {
    std::vector<PoolSet::Member> members;
    for (const char* name : {"chat", "code"}) {
      registries_.push_back(std::make_unique<MetricsRegistry>());
      DirectorOptions options;
      options.manual = true;
      options.pool_name = name;
      options.label_pool = true;
      options.seed = 7;
      options.config_yaml =
          Config({"{type: concurrency-detector, parameters: {maxConcurrency: 1}}",
                  "{type: queue-scorer}"}) +
          "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n"
          "dataLayer: {injectDefaults: false}\nfeatureGates: [flowControl]\n"
          "flowControl: {saturationDetector: {pluginRef: concurrency-detector}}\n";
      auto made = Director::Create(options, nullptr, Logger(), *registries_.back(), clock_);
      ASSERT_TRUE(made.ok()) << made.status().ToString();
      members.push_back({{.name = name}, std::move(*made)});
    }
    registries_.push_back(std::make_unique<MetricsRegistry>());
    set_ = PoolSet::Create(std::move(members), "", *registries_.back(), 7,
                           Logger(sink_, LogLevel::kError));
    for (const char* name : {"chat", "code"}) {
      EndpointInfo e;
      e.name = "e";
      e.address = "10.0.0.1";
      e.port = 80;
      ASSERT_TRUE(set_->Find(name)->SetEndpoints({e}).ok());
    }
  }
  // Answers go to `out`.
  void Ask(const std::string& pool, const std::string& ttl, std::vector<Routing>& out) {
    static const std::string body = R"({"model":"m","prompt":"x"})";
    const HeaderList headers = {{":path", "/v1/completions"}, {"x-llm-d-inference-ttl", ttl}};
    headers_.push_back(headers);
    RequestInput input;
    input.headers = &headers_.back();
    input.body = body;
    input.pool = pool;
    set_->Route(std::move(input), [&out](Routing r) { out.push_back(std::move(r)); });
  }
  FakeClock clock_;
  std::shared_ptr<MemoryLogSink> sink_ = std::make_shared<MemoryLogSink>();
  std::vector<std::unique_ptr<MetricsRegistry>> registries_;
  std::deque<HeaderList> headers_;
  std::unique_ptr<PoolSet> set_;
};

TEST_F(PoolsByHand, ACallbackOfOneStopsNoneAndReloadsNone) {
  Make();
  static const std::string body = R"({"model":"m","prompt":"x"})";
  const HeaderList headers = {{":path", "/v1/completions"}};
  for (const char* pool : {"chat", "nobody's"}) {
    RequestInput input;
    input.headers = &headers;
    input.body = body;
    input.pool = pool;
    Status reloaded;
    set_->Route(std::move(input), [&](const Routing&) {
      set_->Stop();
      reloaded = set_->ReloadFile();
    });
    EXPECT_EQ(reloaded.code(), StatusCode::kFailedPrecondition) << pool;
    EXPECT_THAT(sink_->Lines().back()["msg"].AsString(), HasSubstr("Stop is ignored")) << pool;
  }
  std::vector<Routing> routed;
  for (const char* pool : {"chat", "code"}) Ask(pool, "1h", routed);
  ASSERT_THAT(routed, SizeIs(2));
  for (const Routing& r : routed) EXPECT_TRUE(r.ok) << r.denial.message;
}

TEST_F(PoolsByHand, WhatNobodyTakesIsToldWhateverTheCallbackThrows) {
  Make();
  for (const bool has_headers : {false, true}) {
    const HeaderList headers = {{":path", "/v1/completions"}};
    RequestInput input;
    input.headers = has_headers ? &headers : nullptr;
    int told = 0;
    set_->Route(std::move(input), [&](const Routing& r) {
      told = r.denial.http_status;
      throw std::runtime_error("mine");
    });
    EXPECT_EQ(told, 404);
    EXPECT_EQ(sink_->Lines().back()["error"].AsString(), "mine");
  }
  Routing routing;
  EXPECT_TRUE(set_->RouteNow({}, routing, [](const Routing&) {}));
  EXPECT_EQ(routing.denial.http_status, 404);
}

TEST_F(PoolsByHand, MembersAreThoseOfAll) {
  Make();
  const std::vector<EndpointHandle> all = set_->Members();
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].name, "default/e");
  EXPECT_NE(all[0].id, all[1].id);
}

TEST_F(PoolsByHand, TickDoesWhatIsDueInEachAndSaysTheNextOfAll) {
  Make();
  std::vector<Routing> routed, late;
  for (const char* pool : {"chat", "code"}) Ask(pool, "1h", routed);
  ASSERT_THAT(routed, SizeIs(2));
  const TimePoint start = clock_.Now();
  Ask("chat", "40ms", late);
  Ask("code", "20ms", late);
  for (const int ms : {20, 40}) {
    const TimePoint due = start + std::chrono::milliseconds(ms);
    EXPECT_EQ(set_->Tick(clock_.Now()), due);
    clock_.Advance(due - clock_.Now());
  }
  set_->Tick(clock_.Now());
  ASSERT_THAT(late, SizeIs(2));
  for (const Routing& r : late) EXPECT_EQ(r.denial.dropped_reason, "rejected-ttl-expired");
}

TEST_F(PoolsByHand, MetricsGoToEveryPoolThatHasTheEndpoint) {
  Make();
  EXPECT_TRUE(set_->SetMetrics("default/e", {}).ok());
  EXPECT_EQ(set_->SetMetrics("default/f", {}).code(), StatusCode::kNotFound);
  EXPECT_EQ(set_->SetEndpoints({}).code(), StatusCode::kUnimplemented) << "whose?";
  std::vector<Routing> routed;
  Ask("code", "1h", routed);
  ASSERT_TRUE(routed.at(0).ok);
  EXPECT_TRUE(set_->SetMetrics(routed[0].handles.at(0), {}).ok());
  EXPECT_EQ(set_->SetMetrics(EndpointId{}, {}).code(), StatusCode::kNotFound);
}

// The same in every run, and no two the same in one.
TEST_F(PoolsByHand, IdsAreOfTheSeed) {
  std::vector<std::string> runs[2];
  for (std::vector<std::string>& ids : runs) {
    set_.reset();
    registries_.clear();
    Make();
    std::vector<Routing> all;
    for (const char* pool : {"chat", "code", "none", "none"}) Ask(pool, "1h", all);
    for (const Routing& r : all) ids.push_back(r.request_id);
  }
  EXPECT_THAT(runs[0], SizeIs(4));
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_THAT(std::set<std::string>(runs[0].begin(), runs[0].end()), SizeIs(4));
}

TEST_F(PoolSetTest, ReadinessIsPerPoolAndOfAny) {
  EXPECT_TRUE(set_->ready());
  ASSERT_NE(set_->Find("code"), nullptr);
  EXPECT_TRUE(set_->Find("code")->ready());
  EXPECT_EQ(set_->Find("none"), nullptr);
  EXPECT_THAT(set_->Endpoints(), SizeIs(2));
  EXPECT_FALSE(set_->Reload("").ok());
}

}  // namespace
}  // namespace llmd::sched
