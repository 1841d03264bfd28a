// The gateway over the relay and a real Director: what failed tries leave in the gate.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "core/http/fixture.h"
#include "default_doors.h"
#include "gateway/front.h"
#include "llmd/http/client.h"

namespace llmd::gateway {
namespace {

using http::testing::TestServer;

struct Engine {
  const std::atomic<bool>* broken;
  http::Task<void> operator()(http::Exchange& exchange) const {
    (void)co_await exchange.ReadAll();
    if (*broken) {
      exchange.Abort();
      co_return;
    }
    http::Response answer;
    answer.body = "{}";
    (void)co_await exchange.Send(std::move(answer));
  }
};

// Endpoints that take one request at a time each; what waits waits for ever, as nobody ticks.
constexpr char kConfig[] = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: concurrency-detector, parameters: {maxConcurrency: 1}}
- {type: active-request-scorer}
schedulingProfiles: [{name: p, plugins: [{pluginRef: active-request-scorer}]}]
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
)";

class DirectorPolicyTest : public testing::Test {
 protected:
  void SetUp() override {
    sched::DirectorOptions options;
    options.config_yaml = kConfig;
    options.manual = true;
    auto made = sched::Director::Create(options, std::make_shared<sched::NoFetch>(), Logger(),
                                        metrics, SystemClock());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director = std::move(*made);
    FrontOptions once;
    once.tries.retry_timeout = {};
    auto opened = MakeRelayFront(once, *director, *doors, {}, Logger(), metrics);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    front = std::move(*opened);
  }
  void TearDown() override {
    front->Stop(Duration::zero());
    director->Stop();
  }
  static http::HostPort NobodyThere() {
    TestServer gone(http::testing::Echo);
    return gone.address();
  }
  void SetPool(const std::vector<http::HostPort>& addresses) {
    std::vector<sched::EndpointInfo> all;
    for (const http::HostPort& address : addresses) {
      sched::EndpointInfo& one = all.emplace_back();
      one.name = "e" + std::to_string(all.size());
      one.address = address.host;
      one.port = address.port;
    }
    ASSERT_TRUE(director->SetEndpoints(std::move(all)).ok());
  }
  // Its status; -1 when no answer came.
  int Post() {
    http::RequestHead head;
    head.method = "POST";
    head.target = "/v1/completions";
    http::CallOptions options;
    options.first_byte_timeout = std::chrono::seconds(10);
    auto answer = http::Client(*engine.runtime, {})
                      .FetchBlocking({"127.0.0.1", front->port()}, std::move(head),
                                     R"({"model":"m","prompt":"hi"})", options);
    return answer.ok() ? answer->head.status : -1;
  }

  MetricsRegistry metrics;
  std::unique_ptr<sched::Director> director;
  std::unique_ptr<doors::Doors> doors = DefaultDoors(metrics);
  std::unique_ptr<Front> front;
  std::atomic<bool> broken{false};
  TestServer engine{Engine{&broken}};
};

TEST_F(DirectorPolicyTest, AnEndpointThatRefusesDoesNotShutTheGateOnItsRetry) {
  SetPool({NobodyThere()});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Post(), 503);
}

TEST_F(DirectorPolicyTest, EnginesThatComeBackFindAnOpenGate) {
  SetPool({engine.address(), NobodyThere()});
  broken = true;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Post(), 503);
  broken = false;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Post(), 200);
}

TEST_F(DirectorPolicyTest, ARetryGoesToTheOneThatIsLeft) {
  SetPool({NobodyThere(), engine.address()});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Post(), 200);
}

}  // namespace
}  // namespace llmd::gateway
