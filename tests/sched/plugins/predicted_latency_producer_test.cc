// The producer over the life of requests: what it learns, counts, exports and keeps.
#include <cmath>

#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class PredictedLatency : public DirectorFixture {
 protected:
  void StartWith(const std::string& parameters, const std::string& endpoints = Two()) {
    Start(endpoints,
          {"{type: predicted-latency-producer, parameters: {" + parameters + "}}",
           "{type: latency-scorer}"},
          "", LogLevel::kInfo);
  }
  static std::string Body(bool stream = true) {
    return R"({"model":"m","prompt":")" + std::string(400, 'x') + R"(","stream":)" +
           (stream ? "true}" : "false}");
  }
  // A request that gets its first chunk after `ttft_ms` and `tokens` in all, `tpot_ms` apart.
  void Serve(double ttft_ms, double tpot_ms, int tokens, int status = 200, bool stream = true,
             HeaderList headers = {}) {
    const Routing r = Route(Body(stream), std::move(headers));
    Answer(r, ttft_ms, tpot_ms, tokens, status);
  }
  void Answer(const Routing& r, double ttft_ms, double tpot_ms, int tokens, int status) {
    ASSERT_TRUE(r.ok) << r.denial.message;
    director_->OnResponseHeaders(r.state, status, {{"content-type", "text/event-stream"}});
    Pass(ttft_ms);
    std::string replaced;
    director_->OnResponseBody(r.state, "data: {}\n\n", false, &replaced);
    Pass(tpot_ms * (tokens - 1));
    director_->OnResponseBody(r.state,
                              "data: {\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":" +
                                  std::to_string(tokens) + "}}\n\n",
                              true, &replaced);
  }
  // A streamed chat request about that picture, with text that no other one has.
  void ServePicture(const std::string& url, double ttft_ms) {
    const std::string body =
        R"({"model":"m","stream":true,"messages":[{"role":"user","content":[{"type":"text","text":")" +
        std::to_string(++pictures_) + std::string(396, 'x') +
        R"("},{"type":"image_url","image_url":{"url":")" + url + R"("}}]}]})";
    Answer(Route(body, {{":path", "/v1/chat/completions"}}), ttft_ms, 15, 21, 200);
  }
  void Pass(double ms) { clock_.Advance(Duration(static_cast<int64_t>(ms * 1e6))); }
  // Value of the series that begins so, or NaN.
  double Series(const std::string& start) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + start);
    if (at == std::string::npos) return std::nan("");
    return std::stod(page.substr(page.find("} ", at) + 2));
  }
  double LastPredicted(const std::string& type) const {
    return Series(
        "llm_d_epp_inference_request_metric{model_name=\"m\",target_model_name=\"m\",type=\"" +
        type + "\"");
  }
  int pictures_ = 0;
};

TEST_F(PredictedLatency, LearnsTtftFromTheFirstChunkAndTpotFromTheTokens) {
  StartWith("streamingMode: true");
  for (int i = 0; i < 80; ++i) Serve(120, 15, 21);
  EXPECT_NEAR(LastPredicted("predicted_ttft"), 0.120, 0.004);
  EXPECT_NEAR(LastPredicted("predicted_tpot"), 0.015, 0.001);
  EXPECT_NEAR(LastPredicted("ttft"), 0.120, 1e-6);
  EXPECT_NEAR(LastPredicted("tpot"), 0.015, 1e-6);
}

TEST_F(PredictedLatency, WithoutStreamingModeTtftIsTheWholeAnswer) {
  StartWith("");
  for (int i = 0; i < 80; ++i) Serve(120, 15, 21, 200, i % 2 == 0);
  EXPECT_NEAR(LastPredicted("predicted_ttft"), 0.420, 0.02);
  EXPECT_NEAR(LastPredicted("ttft"), 0.420, 1e-6);
  EXPECT_EQ(LastPredicted("predicted_tpot"), 0);
}

TEST_F(PredictedLatency, KnowsWhichPicturesAreEncodedWhereAsked) {
  const auto predicted = [this](const std::string& parameters) {
    StartWith("streamingMode: true, contextTTL: 1m" + parameters,
              "{name: a, address: 127.0.0.1, port: 8001}");
    for (int i = 0; i < 100; ++i) {
      ServePicture("http://pictures/" + std::to_string(i), 420);
      ServePicture("http://pictures/" + std::to_string(i), 120);
    }
    ServePicture("http://pictures/new", 420);
    const double fresh = LastPredicted("predicted_ttft");
    ServePicture("http://pictures/new", 120);
    return std::pair(fresh, LastPredicted("predicted_ttft"));
  };
  const auto [fresh, encoded] = predicted(", useEncoderCacheFeatures: true");
  EXPECT_NEAR(fresh, 0.420, 0.04);
  EXPECT_NEAR(encoded, 0.120, 0.04);
  const auto [blind_fresh, blind_encoded] = predicted("");
  EXPECT_NEAR(blind_fresh, blind_encoded, 0.1) << "without the parameter both are one";
}

TEST_F(PredictedLatency, FailedAbortedAndOverdueAnswersTeachNothing) {
  StartWith("streamingMode: true, contextTTL: 1s");
  for (int i = 0; i < 80; ++i) Serve(1, 1, 5, 503);
  for (int i = 0; i < 80; ++i) Serve(1500, 20, 5);
  for (int i = 0; i < 80; ++i) Serve(3, 1, 5, 200, false);  // no stream: its chunk is the whole
  for (int i = 0; i < 80; ++i) director_->Cancel(Route(Body()).state);
  EXPECT_EQ(LastPredicted("predicted_ttft"), 0);
  EXPECT_EQ(Series("llm_d_epp_request_predicted_ttft_seconds_count{"), 0);
}

TEST_F(PredictedLatency, PredictInProduceFalseOnlyLearns) {
  StartWith("streamingMode: true, predictInProduce: false");
  for (int i = 0; i < 80; ++i) Serve(120, 15, 21);
  EXPECT_EQ(Series("llm_d_epp_request_predicted_ttft_seconds_count{"), 0);
  EXPECT_NEAR(LastPredicted("ttft"), 0.120, 1e-6);
}

TEST_F(PredictedLatency, CountsAnswersSlowerThanAsked) {
  StartWith("streamingMode: true");
  const HeaderList slo = {{"x-llm-d-slo-ttft-ms", "100"}, {"x-slo-tpot-ms", "20"}};
  Serve(120, 15, 21, 200, true, slo);
  Serve(90, 25, 21, 200, true, slo);
  Serve(90, 15, 21, 200, true, slo);
  Serve(500, 50, 21);  // asked for nothing
  const std::string violations =
      "llm_d_epp_request_slo_violation_total{model_name=\"m\",target_model_name=\"m\",type=\"";
  EXPECT_EQ(Series(violations + "ttft\""), 1);
  EXPECT_EQ(Series(violations + "tpot\""), 1);
  EXPECT_NEAR(LastPredicted("ttft_slo_threshold"), 0.1, 1e-9);
  EXPECT_EQ(LastPredicted("tpot_slo_violation"), 0);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("inference_objective_request_slo_violation_total{"));
}

TEST_F(PredictedLatency, TimesItsPredictions) {
  StartWith("streamingMode: true");
  Serve(10, 5, 5);
  Serve(10, 5, 5, 200, false);
  EXPECT_EQ(Series("llm_d_epp_request_ttft_prediction_duration_seconds_count{"), 2);
  EXPECT_EQ(Series("llm_d_epp_request_tpot_prediction_duration_seconds_count{"), 1);
}

TEST_F(PredictedLatency, ANewDirectorGoesOnFromTheStateFile) {
  const std::string state =
      (std::filesystem::temp_directory_path() / ("llmd_state_" + std::to_string(::getpid())))
          .string();
  StartWith("streamingMode: true, statePath: " + state);
  for (int i = 0; i < 80; ++i) Serve(120, 15, 21);
  director_->Stop();
  director_.reset();
  std::filesystem::remove(path_);
  StartWith("streamingMode: true, statePath: " + state);
  const double before = Series("llm_d_epp_request_predicted_ttft_seconds_count{");
  Serve(120, 15, 21);
  EXPECT_EQ(Series("llm_d_epp_request_predicted_ttft_seconds_count{"), before + 1);
  EXPECT_NEAR(LastPredicted("predicted_ttft"), 0.120, 0.004);

  director_->Stop();
  director_.reset();
  std::filesystem::remove(path_);
  std::ofstream(state) << "{";
  StartWith("streamingMode: true, statePath: " + state);
  EXPECT_THAT(Messages(), Contains("the saved latency model is ignored"));
  std::filesystem::remove(state);
}

TEST_F(PredictedLatency, WhatWasLearnedOutlivesAReloadUnlessTheModeChanged) {
  StartWith("streamingMode: true, sloBufferFactor: 1");
  for (int i = 0; i < 80; ++i) Serve(120, 15, 21);
  const Routing open = Route(Body());
  std::string yaml = options_.config_yaml;
  yaml.replace(yaml.find("sloBufferFactor: 1"), 18, "sloBufferFactor: 2");
  ASSERT_TRUE(director_->Reload(yaml).ok());
  const double before = Series("llm_d_epp_request_predicted_ttft_seconds_count{");
  Serve(120, 15, 21);
  EXPECT_EQ(Series("llm_d_epp_request_predicted_ttft_seconds_count{"), before + 1);
  EXPECT_NEAR(LastPredicted("predicted_ttft"), 0.120, 0.004);
  director_->Cancel(open.state);  // ends under the configuration that routed it
  yaml.replace(yaml.find("streamingMode: true"), 19, "streamingMode: false");
  ASSERT_TRUE(director_->Reload(yaml).ok());
  Serve(120, 15, 21);
  EXPECT_EQ(Series("llm_d_epp_request_predicted_ttft_seconds_count{"), before + 1);
}

TEST_F(PredictedLatency, IgnoredParametersGiveAWarning) {
  StartWith("samplingMean: 1000, maxDecodeTokenSamplesForPrediction: 4");
  EXPECT_THAT(Messages(), Contains(HasSubstr("samplingMean has no effect")));
  EXPECT_THAT(Messages(), Contains(HasSubstr("maxDecodeTokenSamplesForPrediction has no effect")));
  EXPECT_THAT(Messages(), Not(Contains(HasSubstr("statePath"))));
}

}  // namespace
}  // namespace llmd::sched
