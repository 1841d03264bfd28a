// A Director that goes from one configuration to the next while requests are under way.
#include <atomic>
#include <thread>

#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";

class Reload : public DirectorFixture {
 protected:
  std::string Yaml(std::vector<std::string> plugins, const std::string& rest = "",
                   const std::string& path = "") const {
    plugins.push_back("{type: file-discovery, parameters: {path: " + (path.empty() ? path_ : path) +
                      "}}");
    return Config(plugins) +
           "dataLayer: {injectDefaults: false, discovery: {pluginRef: file-discovery}}\n" + rest;
  }
  // Raw scores by endpoint name of the last profile's scorer called `scorer`.
  static std::map<std::string, double> RawOf(const Routing& r, const std::string& scorer) {
    std::map<std::string, double> out;
    for (const ProfileTrace& p : r.trace->profiles) {
      for (const ScoreTrace& s : p.scores) {
        if (s.scorer != scorer) continue;
        for (size_t i = 0; i < p.candidates.size(); ++i)
          out[r.trace->endpoints[p.candidates[i]]] = s.raw[i];
      }
    }
    return out;
  }
  std::string Chosen(const Routing& r) const { return r.trace->endpoints[r.trace->primary]; }
  int Count(const std::string& message) const {
    const std::vector<std::string> all = Messages();
    return static_cast<int>(std::count(all.begin(), all.end(), message));
  }
};

TEST_F(Reload, RoutesByTheNewConfiguration) {
  Start(Two(), {"{type: queue-scorer}"});
  ASSERT_TRUE(director_->Reload(Yaml({"{type: load-aware-scorer}"})).ok());
  const Routing r = Route(kBody);
  ASSERT_TRUE(r.ok);
  EXPECT_THAT(RawOf(r, "load-aware-scorer"), SizeIs(2));
  EXPECT_THAT(RawOf(r, "queue-scorer"), SizeIs(0));
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("llm_d_epp_config_reloads_total{name=\"epp\",result=\"success\"} 1.0"));
}

TEST_F(Reload, ABadConfigurationChangesNothingAndTellsEveryFault) {
  Start(Two(), {"{type: queue-scorer}"});
  const Status status = director_->Reload(
      Yaml({"{type: quue-scorer}", "{type: load-aware-scorer, parameters: {a: 1}}"}));
  EXPECT_THAT(status.message(), AllOf(HasSubstr("quue-scorer"), HasSubstr("line 5")));
  EXPECT_THAT(RawOf(Route(kBody), "queue-scorer"), SizeIs(2));
  EXPECT_EQ(Count("Configuration not reloaded, keeping the previous one"), 1);
  EXPECT_THAT(metrics_.Expose(),
              AllOf(HasSubstr("result=\"failure\"} 1.0"), HasSubstr("result=\"success\"} 0.0")));
}

TEST_F(Reload, WhatAnUnchangedPluginKnowsStays) {
  const std::vector<std::string> both = {
      "{type: prefix-cache-scorer}",
      "{type: approx-prefix-cache-producer, parameters: {autoTune: false, blockSizeTokens: 64}}"};
  Start(Two(), both);
  const std::string body = R"({"model":"m","prompt":")" + std::string(1024, 'x') + "\"}";
  const std::string first = Chosen(Route(body));

  std::vector<std::string> more = both;
  // The same parameters in another order, another plugin before it, and new keys beside its own.
  more[1] =
      "{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 64, autoTune: false}}";
  more.insert(more.begin(), "{type: active-request-scorer}");
  ASSERT_TRUE(director_->Reload(Yaml(more)).ok());
  EXPECT_EQ(RawOf(Route(body), "prefix-cache-scorer")[first], 1.0);

  more[2] =
      "{type: approx-prefix-cache-producer, parameters: {autoTune: false, blockSizeTokens: 128}}";
  ASSERT_TRUE(director_->Reload(Yaml(more)).ok());
  EXPECT_EQ(RawOf(Route(body), "prefix-cache-scorer")[first], 0.0);
}

TEST_F(Reload, CountsInFlightSurviveAChangeOfTheirProducer) {
  Start(Two(), {"{type: active-request-scorer}"});
  const Routing first = Route(kBody);
  ASSERT_TRUE(director_
                  ->Reload(Yaml({"{type: active-request-scorer}",
                                 "{type: inflight-load-producer, parameters: "
                                 "{addEstimatedOutputTokens: true}}"}))
                  .ok());
  const Routing second = Route(kBody);
  EXPECT_EQ(RawOf(second, "active-request-scorer")[Chosen(first)], 0.0) << "still counted";
  EXPECT_NE(Chosen(second), Chosen(first));

  std::string replaced;
  director_->OnResponseHeaders(first.state, 200, {});
  director_->OnResponseBody(first.state, "{}", true, &replaced);
  director_->Cancel(second.state);
  for (const auto& [endpoint, score] : RawOf(Route(kBody), "active-request-scorer"))
    EXPECT_EQ(score, 1.0) << endpoint << " is idle again";
}

TEST_F(Reload, CountsFollowARenamedProducer) {
  Start(Two(), {"{type: active-request-scorer}"});
  const Routing first = Route(kBody);
  ASSERT_TRUE(director_
                  ->Reload(Yaml({"{type: active-request-scorer, parameters: "
                                 "{inFlightLoadProducerName: load}}",
                                 "{name: load, type: inflight-load-producer}"}))
                  .ok());
  EXPECT_EQ(RawOf(Route(kBody), "active-request-scorer")[Chosen(first)], 0.0);
}

TEST_F(Reload, QueuedRequestsKeepTheirPlaceAndTakeTheNewProfiles) {
  const std::string flow =
      "featureGates: [flowControl]\nflowControl: {saturationDetector: {pluginRef: "
      "concurrency-detector}}\n";
  const std::string gate = "{type: concurrency-detector, parameters: {maxConcurrency: 1}}";
  Start("{name: a, address: 127.0.0.1, port: 8001}", {"{type: queue-scorer}", gate}, flow);
  const Routing running = Route(kBody);
  ASSERT_TRUE(running.ok);
  const Answers answers;
  const HeaderList headers = {{":path", "/v1/completions"}};
  for (const char* name : {"one", "two"}) {
    RequestInput input;
    input.headers = &headers;
    input.body = kBody;
    director_->Route(std::move(input), answers.To(name));
  }
  ASSERT_THAT(answers.Names(), IsEmpty());
  ASSERT_TRUE(director_->Reload(Yaml({"{type: load-aware-scorer}", gate}, flow)).ok());
  EXPECT_THAT(answers.Names(), IsEmpty()) << "the gate is still closed";
  director_->Cancel(running.state);
  ASSERT_THAT(answers.Names(1), ElementsAre("one"));
  EXPECT_THAT(RawOf(answers.At(0), "load-aware-scorer"), SizeIs(1));

  ASSERT_TRUE(director_->Reload(Yaml({"{type: load-aware-scorer}"})).ok());
  ASSERT_THAT(answers.Names(2), ElementsAre("one", "two")) << "without the gate nothing waits";
  EXPECT_TRUE(answers.At(1).ok);
}

TEST_F(Reload, FlowControlCanBeTurnedOn) {
  Start("{name: a, address: 127.0.0.1, port: 8001}", {"{type: queue-scorer}"});
  const std::string flow =
      "featureGates: [flowControl]\nflowControl: {maxRequests: 1, saturationDetector: {pluginRef: "
      "concurrency-detector}}\n";
  ASSERT_TRUE(director_
                  ->Reload(Yaml({"{type: queue-scorer}",
                                 "{type: concurrency-detector, parameters: {maxConcurrency: 1}}"},
                                flow))
                  .ok());
  const Routing running = Route(kBody);
  const HeaderList headers = {{":path", "/v1/completions"}};
  std::shared_ptr<RequestState> waiting;
  const Answers answers;
  RequestInput input;
  input.headers = &headers;
  input.body = kBody;
  input.state = &waiting;
  director_->Route(std::move(input), answers.To("it"));
  EXPECT_EQ(Route(kBody).denial.message, "the queue is full");
  director_->Cancel(waiting);
  ASSERT_THAT(answers.Names(1), SizeIs(1));
  EXPECT_FALSE(answers.At(0).ok);
}

TEST_F(Reload, DiscoveryRunsOnUnlessItChanged) {
  Start(Two(), {"{type: queue-scorer}"});
  ASSERT_TRUE(director_->Reload(Yaml({"{type: load-aware-scorer}"})).ok());
  EXPECT_EQ(Count("Endpoints updated"), 1);

  const std::string other = path_ + ".other";
  std::ofstream(other) << "endpoints: [{name: c, address: 127.0.0.1, port: 9}]";
  EXPECT_THAT(director_->Reload(Yaml({"{type: queue-scorer}"}, "", "/nowhere/x.yaml")).message(),
              HasSubstr("/nowhere/x.yaml"));
  EXPECT_EQ(director_->Endpoints().size(), 2u);
  ASSERT_TRUE(director_->Reload(Yaml({"{type: queue-scorer}"}, "", other)).ok());
  EXPECT_THAT(Route(kBody).endpoints, ElementsAre("127.0.0.1:9"));
  std::filesystem::remove(other);

  ASSERT_TRUE(director_->Reload(Config({"{type: queue-scorer}"})).ok());
  EXPECT_TRUE(director_->ready());
}

TEST_F(Reload, AFailedOneHandsNothingOver) {
  const std::string user = "{type: active-request-scorer}";
  const std::string renamed = "{name: load, type: inflight-load-producer}";
  Start(Two(), {user, "{type: inflight-load-producer}"});
  const std::string prompt = R"({"model":"m","prompt":")" + std::string(4000, 'x') + "\"}";
  const Routing first = Route(prompt);
  ASSERT_TRUE(first.ok);
  ASSERT_FALSE(director_
                   ->Reload(Yaml({"{type: active-request-scorer, parameters: "
                                  "{inFlightLoadProducerName: load}}",
                                  renamed},
                                 "", "/nowhere/x.yaml"))
                   .ok());
  ASSERT_TRUE(director_->Reload(Yaml({user, "{type: inflight-load-producer}", renamed})).ok());
  const Routing second = Route(prompt);
  ASSERT_TRUE(second.ok);
  // The new one counts from nothing, in a column of its own.
  const json::Value state = director_->PluginState();
  EXPECT_NE(state["inflight-load-producer"]["state"].Dump(), state["load"]["state"].Dump());
}

TEST_F(Reload, ReadsItsFileAgain) {
  Start(Two(), {"{type: queue-scorer}"});
  EXPECT_EQ(director_->ReloadFile().code(), StatusCode::kFailedPrecondition);
  director_->Stop();
  const std::string config = path_ + ".config";
  std::ofstream(config) << Yaml({"{type: queue-scorer}"});
  options_.config_yaml = Yaml({"{type: queue-scorer}"});
  options_.config_path = config;
  auto made =
      Director::Create(options_, nullptr, Logger(sink_, LogLevel::kDebug), metrics_, clock_);
  ASSERT_TRUE(made.ok());
  director_ = std::move(*made);
  std::ofstream(config) << Yaml({"{type: load-aware-scorer}"});
  ASSERT_TRUE(director_->ReloadFile().ok());
  EXPECT_THAT(RawOf(Route(kBody), "load-aware-scorer"), SizeIs(2));
  std::ofstream(config) << "plugins: 5";
  EXPECT_THAT(director_->ReloadFile().message(), HasSubstr(config));
  std::filesystem::remove(config);
  EXPECT_THAT(director_->ReloadFile().message(), HasSubstr("cannot read"));
  EXPECT_TRUE(Route(kBody).ok);
}

// The claims of the other tests under fire; meant for the thread sanitizer.
TEST_F(Reload, IsRefusedOnceTheDirectorWasStopped) {
  options_.config_path = "/nowhere/config.yaml";
  Start(Two(), {"{type: queue-scorer}"});
  director_->Stop();
  const Status refused =
      FailedPrecondition("the director was stopped: its configuration cannot be reloaded");
  EXPECT_EQ(director_->Reload(Yaml({"{type: load-aware-scorer}"})), refused);
  EXPECT_EQ(director_->ReloadFile(), refused);
  EXPECT_THAT(RawOf(Route(kBody), "load-aware-scorer"), SizeIs(0));
}

TEST_F(Reload, NothingIsLostWhileConfigurationsChange) {
  const std::string flow =
      "featureGates: [flowControl]\nflowControl: {saturationDetector: {pluginRef: "
      "concurrency-detector}}\n";
  const std::string gate = "{type: concurrency-detector, parameters: {maxConcurrency: 2}}";
  Start(Two(), {"{type: active-request-scorer}", gate}, flow, LogLevel::kError);
  std::atomic<bool> stop{false};
  std::atomic<int> asked{0}, answered{0}, refused{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 3; ++t) {
    clients.emplace_back([&] {
      const HeaderList headers = {{":path", "/v1/completions"}};
      const std::string body = kBody;
      while (!stop) {
        ++asked;
        RequestInput input;
        input.headers = &headers;
        input.body = body;
        std::atomic<bool> done{false};
        director_->Route(std::move(input), [&](Routing r) {
          refused += !r.ok;
          std::string replaced;
          director_->OnResponseHeaders(r.state, 200, {});
          director_->OnResponseBody(r.state, "{}", true, &replaced);
          ++answered;
          done = true;
        });
        while (!done) std::this_thread::yield();
      }
    });
  }
  for (int i = 0; i < 60; ++i) {
    const std::string more =
        i % 3 == 0
            ? "{type: inflight-load-producer, parameters: {outputRatio: " + std::to_string(i + 1) +
                  ", addEstimatedOutputTokens: true}}"
            : "{type: queue-scorer}";
    ASSERT_TRUE(
        director_
            ->Reload(Yaml({"{type: active-request-scorer}", more, gate}, i % 4 == 3 ? "" : flow))
            .ok());
  }
  stop = true;
  for (std::thread& t : clients) t.join();
  EXPECT_EQ(asked, answered);
  EXPECT_EQ(refused, 0);
  for (const auto& [endpoint, score] : RawOf(Route(kBody), "active-request-scorer"))
    EXPECT_EQ(score, 1.0) << endpoint;
}

}  // namespace
}  // namespace llmd::sched
