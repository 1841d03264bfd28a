// Lanes at work while everything behind them is replaced; for the sanitizers above all.
#include <gtest/gtest.h>

#include "doors_fixture.h"

namespace llmd::doors {
namespace {

using DoorsThreadsTest = DoorsFixture;

// Knocks until told to stop; false when a request that must pass did not.
bool KnockOn(Doors& doors, int index, const Clock& clock, const std::atomic<bool>& stop) {
  Lane lane(doors, index);
  Admission admission;
  const TestLines lines = {{"x-api-key", "secret"}, {"x-user", "u"}};
  bool good = true;
  while (!stop && good) {
    const DoorRequest request{"POST", "/v1/completions", Span(lines), Ip("192.0.2.1"), clock.Now()};
    ClientShare share = doors.bounds().Open(request.peer, admission.refusal);
    lane.Admit(request, R"({"model":"alias"})", {}, admission);
    good = share.open() && admission.verdict == Verdict::kForward &&
           (admission.target_model == "base" || admission.target_model == "bold");
    doors.Settle(admission, {true, 3}, clock.Now());
  }
  return good;
}

TEST_F(DoorsThreadsTest, ReloadsDisturbNoRequest) {
  AddKey("k1", "secret", [](KeyRecord& k) { k.tokens_per_minute = kMaxPerMinute; });
  options_.engine_key_file = folder_.Write("engine", "one");
  const auto routes = [](const char* target) {
    return std::string(
               "routes: [{name: r, models: [alias], stickyBy: {header: x-user},"
               " targets: [{model: ") +
           target + "}]}]";
  };
  options_.routes.endpoints_files = {{"", folder_.Write("e.yaml", routes("base"))}};
  Open();
  Serve("a", R"({"data":[{"id":"base"},{"id":"bold"}]})");
  std::atomic<bool> stop{false};
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&, i] { bad += KnockOn(*doors_, i, clock_, stop) ? 0 : 1; });
  for (int round = 0; round < 50; ++round) {
    folder_.Write("e.yaml", routes(round % 2 == 0 ? "bold" : "base"));
    folder_.Write("engine", "key-" + std::to_string(round));
    EXPECT_TRUE(doors_->Reload().ok());
    const std::string extra = std::to_string(round);
    Serve("a", R"({"data":[{"id":"base"},{"id":"bold"},{"id":"m)" + extra + "\"}]}");
    (void)doors_->ModelsBody(Admission());
    (void)registry_.Expose();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(bad, 0);
  EXPECT_EQ(doors_->bounds().clients(), 0u);
}

}  // namespace
}  // namespace llmd::doors
