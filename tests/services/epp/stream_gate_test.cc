#include <gtest/gtest.h>

#include <future>

#include "epp/ext_proc_service.h"

namespace llmd::epp {
namespace {

using Verdict = StreamGate::Verdict;
using std::chrono::steady_clock;

TEST(StreamGate, RefusesOneTooManyAndTakesTheNextAfterALeave) {
  StreamGate gate(2);
  EXPECT_EQ(gate.Enter(), Verdict::kWelcome);
  EXPECT_EQ(gate.Enter(), Verdict::kWelcome);
  EXPECT_EQ(gate.Enter(), Verdict::kFull);
  gate.Leave();
  gate.Leave();
  EXPECT_EQ(gate.Enter(), Verdict::kWelcome);
}

TEST(StreamGate, StaysClosed) {
  StreamGate gate(2);
  gate.Close();
  EXPECT_EQ(gate.Enter(), Verdict::kClosed);
  gate.Leave();
  EXPECT_EQ(gate.Enter(), Verdict::kClosed);
}

TEST(StreamGate, IsIdleOnceAllHaveLeft) {
  StreamGate gate(2);
  EXPECT_TRUE(gate.WaitIdle(steady_clock::now()));
  gate.Enter();
  EXPECT_FALSE(gate.WaitIdle(steady_clock::now()));
  auto idle = std::async(std::launch::async, [&] {
    return gate.WaitIdle(steady_clock::now() + std::chrono::minutes(1));
  });
  gate.Leave();
  EXPECT_TRUE(idle.get());
}

TEST(StreamMetrics, CountsByCode) {
  MetricsRegistry registry;
  StreamMetrics metrics(registry);
  metrics.Total(grpc::StatusCode::OK).Add();
  metrics.Total(grpc::StatusCode::INVALID_ARGUMENT).Add(2);
  metrics.Total(grpc::StatusCode::UNAVAILABLE).Add(3);
  const std::string text = registry.Expose();
  EXPECT_NE(text.find("llm_d_epp_extproc_streams_total{code=\"OK\"} 1.0"), std::string::npos);
  EXPECT_NE(text.find("{code=\"InvalidArgument\"} 2.0"), std::string::npos);
  EXPECT_NE(text.find("{code=\"Canceled\"} 3.0"), std::string::npos);
}

}  // namespace
}  // namespace llmd::epp
