// A request's answer on its way out: what is counted, when, and once.
#include "llmd/json.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";
constexpr char kLabels[] =
    "{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",target_model_name=\"m\"}";

class Respond : public DirectorFixture {
 protected:
  Respond() { clock_.Advance(std::chrono::seconds(10)); }
  bool Says(const std::string& series, const std::string& value) {
    return metrics_.Expose().find("llm_d_epp_" + series + kLabels + " " + value + "\n") !=
           std::string::npos;
  }
  void Chunk(const Routing& r, std::string_view text, bool end = false) {
    std::string out;
    director_->OnResponseBody(r.state, text, end, &out);
  }
};

TEST_F(Respond, UsageIsCountedOnceHoweverTheAnswerIsSplit) {
  const std::string sse =
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n"
      "data: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,"
      "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";
  Start(Two(), {"{type: queue-scorer}"});
  for (size_t size = 1; size <= sse.size(); size += 3) {
    const Routing r = Route(kBody);
    director_->OnResponseHeaders(r.state, 200, {{"content-type", "text/event-stream"}});
    for (size_t i = 0; i < sse.size(); i += size) Chunk(r, std::string_view(sse).substr(i, size));
    Chunk(r, "", true);
  }
  const double runs = static_cast<double>((sse.size() + 2) / 3);
  EXPECT_TRUE(Says("request_output_tokens_sum", FormatMetricValue(7 * runs)));
  EXPECT_TRUE(Says("request_output_tokens_count", FormatMetricValue(runs)));
  EXPECT_TRUE(Says("request_input_tokens_sum", FormatMetricValue(5 * runs)));
  EXPECT_TRUE(Says("request_cached_tokens_sum", FormatMetricValue(4 * runs)));
}

TEST_F(Respond, TimesAreThoseOfTheClock) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody);
  director_->OnResponseHeaders(r.state, 200, {{"content-type", "text/event-stream"}});
  clock_.Advance(milliseconds(300));
  Chunk(r, "data: {}\n\n");
  clock_.Advance(milliseconds(100));
  Chunk(r, "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":3}}\n\n");
  clock_.Advance(milliseconds(100));
  Chunk(r, "", true);
  EXPECT_TRUE(Says("request_duration_seconds_sum", "0.5"));
  EXPECT_TRUE(Says("request_streaming_tpot_seconds_sum", "0.1"));
  EXPECT_TRUE(Says("request_streaming_itl_seconds_sum", "0.1"));
  EXPECT_TRUE(Says("request_running", "0.0"));
  EXPECT_THAT(metrics_.Expose(), HasSubstr("streaming=\"true\",target_model_name=\"m\"} 0.3\n"));
}

TEST_F(Respond, ErrorStatusesOfTheServerAreCounted) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody);
  const HeaderList out = director_->OnResponseHeaders(r.state, 503, {});
  EXPECT_THAT(out, Not(Contains(Pair("x-went-into-resp-headers", "true"))));  // the picker's
  EXPECT_THAT(
      metrics_.Expose(),
      HasSubstr("llm_d_epp_request_error_total{error_code=\"503\",fairness_id=\"default-flow\","
                "model_name=\"m\",priority=\"0\""));
  director_->OnResponseHeaders(Route(kBody).state, 200, {});
  EXPECT_THAT(metrics_.Expose(), Not(HasSubstr("error_code=\"200\"")));
}

TEST_F(Respond, NothingCountsAfterTheEnd) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody);
  Chunk(r, "12345", true);
  Chunk(r, "late", true);
  director_->Cancel(r.state);
  EXPECT_TRUE(director_->OnResponseHeaders(r.state, 500, {}).empty());
  EXPECT_TRUE(Says("response_size_bytes_sum", "5.0"));
  EXPECT_TRUE(Says("response_size_bytes_count", "1.0"));
}

TEST_F(Respond, AStateThatIsNotThereIsNoError) {
  Start(Two(), {"{type: queue-scorer}"});
  std::string out;
  EXPECT_FALSE(director_->OnResponseBody(nullptr, "x", true, &out));
  EXPECT_TRUE(director_->OnResponseHeaders(nullptr, 200, {}).empty());
  director_->Cancel(nullptr);
}

TEST_F(Respond, RefusedRequestsTakeNoPartInTheAccounting) {
  Start("", {"{type: queue-scorer}"});
  const Routing r = Route(kBody);
  ASSERT_FALSE(r.ok);
  Chunk(r, "x", true);
  director_->Cancel(r.state);
  EXPECT_THAT(metrics_.Expose(),
              Not(HasSubstr("llm_d_epp_request_total{fairness_id=\"default-flow\"")));
}

TEST_F(Respond, TheModelIsRestoredWhereverTheChunksBreak) {
  const std::string sse = "data: {\"id\":1,\"model\":\"tuned\",\"x\":\"tuned\"}\n\n";
  Start(Two(), {"{type: queue-scorer}"});
  for (size_t cut = 0; cut <= sse.size(); ++cut) {
    const Routing r = Route(kBody, {{"x-llm-d-model-name-rewrite", "tuned"}});
    std::string all, out;
    ASSERT_TRUE(director_->OnResponseBody(r.state, sse.substr(0, cut), false, &out));
    all += out;
    ASSERT_TRUE(director_->OnResponseBody(r.state, sse.substr(cut), true, &out));
    all += out;
    EXPECT_EQ(all, "data: {\"id\":1,\"model\":\"m\",\"x\":\"tuned\"}\n\n") << cut;
  }
}

TEST_F(Respond, ACompressedAnswerIsNeitherReadNorChanged) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"x-llm-d-model-name-rewrite", "tuned"}});
  EXPECT_TRUE(r.edits_response && r.reads_response);
  director_->OnResponseHeaders(r.state, 200, {{"content-encoding", "gzip"}});
  std::string out;
  EXPECT_FALSE(director_->OnResponseBody(
      r.state, "\"model\":\"tuned\",\"usage\":{\"completion_tokens\":3}", true, &out));
  EXPECT_THAT(metrics_.Expose(), Not(HasSubstr("request_output_tokens_sum{fairness_id=\"default-"
                                               "flow\",model_name=\"m\",priority=\"0\","
                                               "target_model_name=\"tuned\"} 3")));
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_response_size_bytes_count"));
}

TEST_F(Respond, ASkippedBodyEndsTheRequestAndLeavesNoSize) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody);
  EXPECT_FALSE(r.edits_response);
  director_->OnResponseHeaders(r.state, 200, {});
  director_->OnResponseBodySkipped(r.state);
  EXPECT_TRUE(Says("request_running", "1.0"));
  Chunk(r, "", true);
  EXPECT_TRUE(Says("request_running", "0.0"));
  EXPECT_TRUE(Says("request_duration_seconds_count", "1.0"));
  EXPECT_TRUE(Says("response_size_bytes_count", "0.0"));
  director_->OnResponseBodySkipped(r.state);
  director_->OnResponseBodySkipped(nullptr);
}

TEST_F(Respond, ControlHeadersAreRemovedWhateverTheirSpelling) {
  Start(Two(), {"{type: queue-scorer}"});
  for (const char* name :
       {"x-gateway-destination-endpoint-subset", "x-llm-d-inference-fairness-id",
        "x-gateway-inference-fairness-id", "x-llm-d-inference-objective",
        "x-gateway-inference-objective", "x-llm-d-model-name-rewrite",
        "x-gateway-model-name-rewrite", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms",
        "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms", "x-llm-d-video-fps",
        "x-llm-d-request-dropped-reason", "x-gateway-destination-endpoint-served",
        "x-gateway-destination-endpoint-scores"}) {
    const Routing r = Route(kBody, {{name, "1"}, {name, "2"}, {"x-mine", "1"}});
    EXPECT_THAT(r.remove_headers, ::testing::ElementsAre(name));
  }
}

}  // namespace
}  // namespace llmd::sched
