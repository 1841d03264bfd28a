// Classes, cold start, and the file that keeps a model.
#include "latency/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <thread>

#include "latency/headroom.h"
#include "latency/state_file.h"

namespace llmd::sched::latency {
namespace {

using ::testing::HasSubstr;

LatencyFeatures Prompt(double tokens, double answer = 0) {
  return {.input_token_length = tokens, .num_tokens_generated = answer};
}

void Teach(LatencyModel& model, uint8_t c, double factor, int count = 200) {
  for (int i = 0; i < count; ++i) {
    const double n = 100 + 37 * (i % 50);
    model.LearnTtft(c, Prompt(n, 100), factor * (10 + n / 20));
    model.LearnTpot(c, Prompt(n, 100), factor * 8);
    model.LearnLength(c, 100);
  }
}

TEST(LatencyModel, SaysNothingUntilItHasSeenEnough) {
  LatencyModel model(true);
  const uint8_t c = model.ClassOf("decode");
  Teach(model, c, 1, 49);
  EXPECT_TRUE(std::isnan(Reader(model).Ttft(c, Prompt(500))));
  Teach(model, c, 1, 1);
  EXPECT_NEAR(Reader(model).Ttft(c, Prompt(500)), 35, 5);
  EXPECT_NEAR(Reader(model).Tpot(c, Prompt(500)), 8, 1);
}

TEST(LatencyModel, ClassesAreLearnedApartAndAllSpeakForAColdOne) {
  LatencyModel model(true);
  const uint8_t fast = model.ClassOf("fast"), slow = model.ClassOf("slow");
  EXPECT_NE(fast, slow);
  EXPECT_EQ(model.ClassOf("fast"), fast);
  Teach(model, fast, 1);
  EXPECT_NEAR(Reader(model).Ttft(slow, Prompt(500)), 35, 5);  // of all
  Teach(model, slow, 10);
  EXPECT_NEAR(Reader(model).Ttft(fast, Prompt(500)), 35, 5);
  EXPECT_NEAR(Reader(model).Ttft(slow, Prompt(500)), 350, 50);
}

TEST(LatencyModel, HoldsABoundedNumberOfClasses) {
  LatencyModel model(true);
  for (size_t i = 1; i < kMaxClasses; ++i) EXPECT_EQ(model.ClassOf(std::to_string(i)), i);
  EXPECT_EQ(model.ClassOf("one too many"), 0);
  Teach(model, 0, 1);
  EXPECT_NEAR(Reader(model).Tpot(0, Prompt(10)), 8, 1);
}

TEST(LatencyModel, WithoutStreamingTheLengthOfTheAnswerCounts) {
  LatencyModel model(false);
  for (int i = 0; i < 400; ++i) {
    const double answer = 20 + 10 * (i % 20);
    model.LearnTtft(0, Prompt(500, answer), 30 + 8 * answer);
    model.LearnLength(0, answer);
  }
  const double usual = Reader(model).Ttft(0, Prompt(500));
  EXPECT_NEAR(usual, 30 + 8 * 115, 150);
  // max_tokens bounds what is expected and does not raise it.
  EXPECT_NEAR(Reader(model).Ttft(0, Prompt(500, 20)), 30 + 8 * 20, 60);
  EXPECT_EQ(Reader(model).Ttft(0, Prompt(500, 1e6)), usual);
}

TEST(LatencyModel, ReadersNeverSeeHalfOfAnUpdate) {
  LatencyModel model(true);
  Teach(model, 0, 1, 60);
  std::thread writer([&] {
    for (int i = 0; i < 20'000; ++i) model.LearnTtft(0, {}, i % 2 ? 10 : 40);
  });
  for (int i = 0; i < 20'000; ++i) {
    const double ttft = Reader(model).Ttft(0, {});
    ASSERT_TRUE(ttft >= 0 && ttft < 100) << ttft;
  }
  writer.join();
}

class StateFile : public ::testing::Test {
 protected:
  ~StateFile() override { std::filesystem::remove_all(dir_); }
  std::string Path() const { return (dir_ / "latency.json").string(); }
  void Write(const std::string& text) const { std::ofstream(Path()) << text; }
  std::string Read() const {
    std::ifstream file(Path());
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  const std::filesystem::path dir_ = [] {
    auto dir = std::filesystem::temp_directory_path() / ("llmd_lat_" + std::to_string(::getpid()));
    std::filesystem::create_directories(dir);
    return dir;
  }();
};

TEST_F(StateFile, KeepsWhatWasLearned) {
  LatencyModel model(true), back(true);
  Teach(model, model.ClassOf("decode"), 2);
  ASSERT_TRUE(SaveModel(model, Path()).ok());
  EXPECT_FALSE(std::filesystem::exists(Path() + ".new"));
  ASSERT_TRUE(LoadModel(Path(), &back).ok());
  const uint8_t c = back.ClassOf("decode");
  EXPECT_EQ(Reader(back).Ttft(c, Prompt(700)), Reader(model).Ttft(c, Prompt(700)));
  EXPECT_EQ(Reader(back).Tpot(c, Prompt(700)), Reader(model).Tpot(c, Prompt(700)));
}

TEST_F(StateFile, ACorruptFileIsToldAndChangesNothing) {
  LatencyModel good(true);
  Teach(good, good.ClassOf("decode"), 1);
  ASSERT_TRUE(SaveModel(good, Path()).ok());
  const std::string text = Read();
  LatencyModel model(true);
  EXPECT_EQ(LoadModel(Path() + "-absent", &model).code(), StatusCode::kNotFound);
  std::string other = text;
  other.replace(other.find("\"version\":1"), 11, "\"version\":2");
  for (const std::string& bad :
       {std::string(), std::string("{"), text.substr(0, text.size() / 2), other,
        std::string(R"({"version":1})"), std::string(R"({"version":1,"model":{"streaming":true}})"),
        std::string(R"({"version":1,"model":{"streaming":true,"classes":[{"label":7}]}})")}) {
    Write(bad);
    const Status status = LoadModel(Path(), &model);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad.substr(0, 60);
    EXPECT_THAT(status.message(), HasSubstr("latency.json"));
    EXPECT_TRUE(std::isnan(Reader(model).Ttft(0, Prompt(1))));
  }
  Write(std::string(3 << 20, ' '));
  EXPECT_THAT(LoadModel(Path(), &model).message(), HasSubstr("2 MiB"));
}

TEST_F(StateFile, AModelOfTheOtherModeIsRefused) {
  LatencyModel whole(false), pieces(true);
  ASSERT_TRUE(SaveModel(whole, Path()).ok());
  EXPECT_THAT(LoadModel(Path(), &pieces).message(), HasSubstr("streamingMode false"));
}

TEST_F(StateFile, TheKeeperSavesAtItsEndWhenSomethingWasLearned) {
  const auto model = std::make_shared<LatencyModel>(true);
  {
    StateKeeper idle(model, Path(), Logger());
  }
  EXPECT_FALSE(std::filesystem::exists(Path()));
  {
    StateKeeper keeper(model, Path(), Logger());
    Teach(*model, 0, 1, 1);
  }
  EXPECT_THAT(Read(), HasSubstr("\"version\":1"));
}

TEST_F(StateFile, TheKeeperTellsWhenItCannotSave) {
  auto sink = std::make_shared<MemoryLogSink>();
  const auto model = std::make_shared<LatencyModel>(true);
  {
    StateKeeper keeper(model, (dir_ / "gone" / "x.json").string(), Logger(sink, LogLevel::kInfo));
    Teach(*model, 0, 1, 1);
  }
  ASSERT_EQ(sink->Lines().size(), 1u);
  EXPECT_THAT(sink->Lines()[0]["error"].AsString(), HasSubstr("gone/x.json"));
}

LatencyPrediction Headroom(const SloTerms& slo, double tightest, bool tpot_counts, double ttft,
                           double tpot) {
  LatencyPrediction p{.ttft_ms = ttft, .tpot_ms = tpot};
  SetHeadroom(slo, tightest, tpot_counts, p);
  return p;
}

TEST(LatencyHeadroom, IsWhatTheSlosLeave) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const SloTerms both{.ttft_ms = 500, .tpot_ms = 50, .factor = 0.8};
  LatencyPrediction p = Headroom(both, kNone, true, 300, 30);
  EXPECT_EQ(p.ttft_headroom_ms, 200);
  EXPECT_DOUBLE_EQ(p.tpot_headroom_ms, 10);
  EXPECT_TRUE(p.Meets());
  // Who runs there was promised more.
  EXPECT_EQ(Headroom(both, 20, true, 300, 30).tpot_headroom_ms, 20 * 0.8 - 30);
  // What was waited already is gone.
  EXPECT_EQ(Headroom({.ttft_ms = 500, .waited_ms = 150}, kNone, true, 300, 30).ttft_headroom_ms,
            50);
  EXPECT_EQ(Headroom(both, 20, false, 300, 30).tpot_headroom_ms, 0);
  EXPECT_TRUE(Headroom(both, 20, false, 300, kNan).valid);
  EXPECT_FALSE(Headroom(both, kNone, true, 300, kNan).valid);
  EXPECT_FALSE(Headroom(both, kNone, true, kNan, 30).valid);
}

TEST(LatencyHeadroom, WithoutAnSloTheTimeItselfRanks) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  const LatencyPrediction p = Headroom({}, 20, true, 300, 30);
  EXPECT_EQ(p.ttft_headroom_ms, -300);
  EXPECT_EQ(p.tpot_headroom_ms, -30);
  // One SLO alone leaves the other dimension out, unless one is promised to those who run.
  EXPECT_EQ(Headroom({.ttft_ms = 400}, kNone, true, 300, 30).tpot_headroom_ms, 0);
  EXPECT_EQ(Headroom({.ttft_ms = 400}, 20, true, 300, 30).tpot_headroom_ms, -10);
  EXPECT_EQ(Headroom({.tpot_ms = 40}, kNone, true, 300, 30).ttft_headroom_ms, 0);
}

}  // namespace
}  // namespace llmd::sched::latency
