// A Director whose members and metrics are given by hand, at one instant of its clock.
#include <deque>

#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;

class ByHand : public DirectorFixture {
 protected:
  void Drive() {
    options_.manual = true;
    options_.config_yaml =
        Config({"{type: queue-scorer}", "{type: utilization-detector}"}) +
        "dataLayer: {injectDefaults: false}\nfeatureGates: [flowControl]\nflowControl: "
        "{saturationDetector: {pluginRef: utilization-detector}}\n";
    auto made =
        Director::Create(options_, nullptr, Logger(sink_, LogLevel::kError), metrics_, clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  static EndpointInfo Member(const std::string& name, uint16_t port) {
    EndpointInfo info;
    info.name = name;
    info.address = "10.0.0.1";
    info.port = port;
    return info;
  }
};

TEST_F(ByHand, RequestsOfOneInstantShowInAPageOfTheSame) {
  Drive();
  ASSERT_TRUE(director_->SetEndpoints({Member("a", 1)}).ok());
  EndpointMetrics idle, busy;
  busy.waiting = 4;
  ASSERT_TRUE(director_->SetMetrics("default/a", idle).ok());
  const HeaderList headers = {{":path", "/v1/completions"}};
  std::deque<Routing> answers;
  const auto sent = [&] {
    Routing& answer = answers.emplace_back();
    RequestInput input;
    input.headers = &headers;
    input.body = R"({"model":"m","prompt":"hello"})";
    director_->Route(std::move(input), [&answer](Routing r) { answer = std::move(r); });
    return answer.ok;
  };
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(sent());
  ASSERT_TRUE(director_->SetMetrics("default/a", busy).ok());
  EXPECT_TRUE(sent()) << "4 of 5 wait, none is unseen";
  EXPECT_FALSE(sent()) << "now one is";
  director_->Stop();  // the last one is told while there is an answer
}

TEST_F(ByHand, AMemberHasAHandleBeforeAnybodyIsRoutedToIt) {
  Drive();
  ASSERT_TRUE(director_->SetEndpoints({Member("a", 1), Member("b", 2)}).ok());
  const auto of = [&](const std::string& name) {
    for (const EndpointHandle& one : director_->Members()) {
      if (one.name == name) return one.id;
    }
    return EndpointId();
  };
  const EndpointId a = of("default/a");
  EXPECT_NE(a, EndpointId());
  EXPECT_NE(a, of("default/b"));
  ASSERT_TRUE(director_->SetEndpoints({Member("b", 2)}).ok());
  EXPECT_EQ(of("default/a"), EndpointId());
  ASSERT_TRUE(director_->SetEndpoints({Member("a", 1), Member("b", 2)}).ok());
  const EndpointId again = of("default/a");
  EXPECT_NE(again, a) << "another life";
  const HeaderList headers = {{":path", "/v1/completions"}};
  Routing answer;
  RequestInput input;
  input.headers = &headers;
  input.body = R"({"model":"m","prompt":"hello"})";
  input.exclude = {&again, 1};
  director_->Route(std::move(input), [&answer](Routing r) { answer = std::move(r); });
  ASSERT_TRUE(answer.ok);
  EXPECT_EQ(answer.handles.at(0), of("default/b"));
}

TEST_F(ByHand, AnEndpointGivenTwiceIsAnErrorThatChangesNothing) {
  Drive();
  ASSERT_TRUE(director_->SetEndpoints({Member("a", 1), Member("a", 2), Member("b", 1)}).ok())
      << "names and addresses may be had twice, both together not";
  const Status twice = director_->SetEndpoints({Member("a", 1), Member("c", 3), Member("a", 1)});
  EXPECT_EQ(twice.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(twice.message(), HasSubstr("default/a"));
  EXPECT_EQ(director_->Endpoints().size(), 3u);
}

}  // namespace
}  // namespace llmd::sched
