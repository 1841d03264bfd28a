#include "llmd/sched/testing/golden.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "llmd/sched/testing/gtest.h"
#include "sched/support.h"

namespace llmd::sched::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kCases[] = R"([
  {"name": "short queue", "endpoints": [{"name": "a", "waiting": 4}, {"name": "b", "waiting": 1}],
   "request": {"body": {"model": "m", "prompt": "x"}}},
  {"name": "unknown queue", "endpoints": [{"name": "a", "waiting": null}, {"name": "b", "waiting": 1}],
   "request": {"path": "/v1/chat/completions", "headers": {"x-request-id": "r"},
               "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}}
])";

class Golden : public ::testing::Test {
 protected:
  Golden()
      : path_((std::filesystem::temp_directory_path() /
               ("llmd_golden_" + std::to_string(::getpid()) + ".json"))
                  .string()) {
    Put(kCases);
    options_.path = path_;
    options_.config_yaml = Config({"{type: queue-scorer}"});
    options_.update = false;
  }
  ~Golden() override { std::filesystem::remove(path_); }
  void Put(const std::string& text) { std::ofstream(path_) << text; }
  std::string Text() const {
    std::stringstream out;
    out << std::ifstream(path_).rdbuf();
    return out.str();
  }
  void Update() {
    options_.update = true;
    ASSERT_TRUE(IsOk(CheckGolden(options_)));
    options_.update = false;
  }
  const std::string path_;
  GoldenOptions options_;
};

TEST_F(Golden, UpdatedFilesHoldAndStayAsTheyAre) {
  Update();
  EXPECT_TRUE(IsOk(CheckGolden(options_)));
  const std::string written = Text();
  EXPECT_THAT(written, HasSubstr("\"decision_type\": \"decode-only\""));
  Update();
  EXPECT_EQ(Text(), written);
}

TEST_F(Golden, AnotherConfigurationDiffersByCaseAndPlace) {
  Update();
  options_.config_yaml = Config({"{type: running-requests-size-scorer}"});
  const Status status = CheckGolden(options_);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(),
              HasSubstr("case 'short queue': decision.profiles[0].scores[0].scorer: expected "
                        "\"queue-scorer\", got \"running-requests-size-scorer\""));
  EXPECT_THAT(status.message(), HasSubstr("case 'unknown queue'"));
}

TEST_F(Golden, ACaseWithoutDecisionFails) {
  EXPECT_THAT(CheckGolden(options_).message(), HasSubstr("decision: expected null"));
}

TEST_F(Golden, NumbersHaveATolerance) {
  Update();
  std::string text = Text();
  const size_t at = text.find("\"totals\"");
  ASSERT_NE(at, std::string::npos) << text;
  text.replace(text.find("0.0", at), 3, "1e-12");
  Put(text);
  EXPECT_TRUE(IsOk(CheckGolden(options_)));
  options_.tolerance = 1e-13;
  EXPECT_THAT(CheckGolden(options_).message(), HasSubstr("totals[0]"));
}

TEST_F(Golden, BadFilesAreToldApart) {
  const auto told = [&](const std::string& text) {
    Put(text);
    return CheckGolden(options_).message();
  };
  EXPECT_THAT(told("{}"), HasSubstr("expected a list of cases"));
  EXPECT_THAT(told("[]"), HasSubstr("no cases"));
  EXPECT_THAT(told(R"([{"name": "n", "endpoint": []}])"),
              HasSubstr("case 'n': unknown key 'endpoint'"));
  EXPECT_THAT(told(R"([{"name": "n", "endpoints": [{"name": "a", "wait": 1}]}])"),
              HasSubstr("endpoints[0]: unknown key 'wait'"));
  EXPECT_THAT(told(R"([{"name": "n", "endpoints": [{"name": "a", "port": 0}]}])"),
              HasSubstr("expected a port"));
  EXPECT_THAT(told(R"([{"name": "n", "request": {"body": 5}}])"), HasSubstr("case 'n'"));
  options_.path = "/no/such.json";
  EXPECT_EQ(CheckGolden(options_).code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace llmd::sched::testing
