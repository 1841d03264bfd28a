#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "processor_support.h"

namespace llmd::epp {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

using Step = void (*)(Processor&);
constexpr Step kHeaders = [](Processor& p) { p.OnRequestHeaders({{":method", "POST"}}, false); };
constexpr Step kBody = [](Processor& p) { p.OnRequestBody("{}", true); };
constexpr Step kTrailers = [](Processor& p) { p.OnRequestTrailers(); };
constexpr Step kAnswer = [](Processor& p) { p.OnResponseHeaders({{":status", "200"}}, false); };
constexpr Step kChunk = [](Processor& p) { p.OnResponseBody("x", false); };
constexpr Step kLast = [](Processor& p) { p.OnResponseBody("x", true); };
constexpr Step kEnd = [](Processor& p) { p.OnResponseTrailers(); };
constexpr Step kNothing = [](Processor& p) { p.OnUnknown(); };

TEST_F(ProcessorTest, EndsTheStreamOnMessagesOutOfOrder) {
  const std::vector<std::vector<Step>> orders = {
      {kBody},
      {kTrailers},
      {kChunk},
      {kEnd},
      {kNothing},
      {kHeaders, kHeaders},
      {kHeaders, kBody, kHeaders},
      {kHeaders, kBody, kChunk},
      {kHeaders, kBody, kEnd},
      {kHeaders, kBody, kAnswer, kAnswer},
      {kHeaders, kBody, kAnswer, kLast, kEnd},
  };
  for (size_t i = 0; i < orders.size(); ++i) {
    *sink = RecordingSink();
    auto p = Make();
    for (const Step step : orders[i]) step(*p);
    EXPECT_THAT(sink->aborts, SizeIs(1)) << "order " << i;
    const size_t answers = sink->answers.size();
    for (const Step step : {kBody, kTrailers, kAnswer, kChunk, kEnd}) step(*p);
    EXPECT_THAT(sink->answers, SizeIs(answers)) << "silent afterwards, order " << i;
    EXPECT_THAT(sink->aborts, SizeIs(1)) << "order " << i;
  }
}

TEST_F(ProcessorTest, PassesOverWhatComesAfterABodysEnd) {
  std::vector<std::string> told;
  ProcessorOptions options;
  options.on_excess = [&](const char* what) { told.emplace_back(what); };
  for (const bool queued : {false, true}) {
    for (const std::string_view more : {"", "{}", "more"}) {
      *sink = RecordingSink();
      told.clear();
      director.hold = queued;
      auto p = Make(options);
      p->OnRequestHeaders(post, false);
      p->OnRequestBody("{}", true);
      p->OnRequestBody(more, true);
      p->OnRequestBody(more, false);
      if (queued) director.held(director.routing);
      p->OnRequestBody(more, true);
      EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kRequestHeaders, Kind::kRequestBody));
      EXPECT_EQ(sink->Body(Kind::kRequestBody), "{}");
      EXPECT_THAT(told, ElementsAre("request_body"));
      p->OnResponseHeaders({{":status", "200"}}, false);
      p->OnRequestBody(more, true);
      p->OnResponseBody("x", true);
      p->OnResponseBody(more, true);
      p->OnResponseBody(more, false);
      EXPECT_EQ(sink->Body(Kind::kResponseBody), "x");
      EXPECT_EQ(sink->Kinds().size(), 4u);
      EXPECT_THAT(sink->aborts, IsEmpty());
      EXPECT_THAT(told, SizeIs(1)) << "once a stream";
    }
  }
}

TEST_F(ProcessorTest, PassesOverABodyWhereNoneWasAnnounced) {
  auto p = Make();
  p->OnRequestHeaders(post, true);
  p->OnRequestBody("", true);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kRequestHeaders));
  EXPECT_THAT(sink->aborts, IsEmpty());
  p->OnResponseHeaders({{":status", "204"}}, true);
  p->OnResponseBody("", true);
  EXPECT_THAT(sink->aborts, IsEmpty());
}

TEST_F(ProcessorTest, AnswersAStreamedChunkAfterTheEndWithNothing) {
  auto p = Make();
  p->OnModes(BodyMode::kFullDuplex, BodyMode::kStreamed);
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("x", true);
  p->OnResponseBody("", true);
  p->OnResponseBody("y", true);
  ASSERT_THAT(sink->answers, SizeIs(6));
  EXPECT_TRUE(sink->answers[4].unchanged);
  EXPECT_FALSE(sink->answers[5].unchanged);
  EXPECT_EQ(sink->answers[5].body, "");
  EXPECT_THAT(sink->aborts, IsEmpty());
}

TEST_F(ProcessorTest, GivesTheRequestBackWhenTheProtocolIsBroken) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnRequestHeaders(post, false);
  EXPECT_EQ(director.cancels, 1);
}

TEST_F(ProcessorTest, PassesWhatTheProxyAnswersByItself) {
  auto p = Make();  // e.g. a timeout while the body was still coming
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{", false);
  p->OnResponseHeaders({{":status", "408"}}, false);
  p->OnResponseBody("timeout", true);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kResponseHeaders, Kind::kResponseBody));
  EXPECT_EQ(sink->Body(Kind::kResponseBody), "timeout");
  EXPECT_EQ(director.routes, 0);
  EXPECT_THAT(sink->aborts, IsEmpty());
}

TEST_F(ProcessorTest, CancelsAQueuedRequestThatTheProxyAnswers) {
  director.hold = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "504"}}, true);
  EXPECT_EQ(director.cancels, 1);
  director.held(director.routing);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kResponseHeaders));
}

TEST_F(ProcessorTest, AnswersTrailersOfAQueuedRequestAfterIt) {
  director.hold = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnRequestTrailers();
  EXPECT_THAT(sink->answers, IsEmpty());
  director.held(director.routing);
  EXPECT_THAT(sink->Kinds(),
              ElementsAre(Kind::kRequestHeaders, Kind::kRequestBody, Kind::kRequestTrailers));
}

TEST_F(ProcessorTest, SendsWhatWasHeldBackBeforeTheTrailers) {
  director.at_end = "\"model\":\"tar";
  director.routing.edits_response = director.routing.reads_response = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("x", false);
  p->OnResponseTrailers();
  EXPECT_EQ(sink->Body(Kind::kResponseBody), "x\"model\":\"tar");
  EXPECT_EQ(sink->Kinds().back(), Kind::kResponseTrailers);
  EXPECT_EQ(director.response_ends, 1);
}

TEST_F(ProcessorTest, DropsTheLengthOfAnAnswerThatMayChange) {
  director.routing.edits_response = director.routing.reads_response = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  EXPECT_THAT(sink->answers.back().removed, ElementsAre("content-length"));
}

TEST_F(ProcessorTest, SetsTheLengthOfTheBodyThatIsSent) {
  director.routing.body_edits = {{1, 1, "abc"}};
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  EXPECT_THAT(sink->answers[0].set, testing::Contains(Pair("content-length", "5")));
}

TEST_F(ProcessorTest, NeverSetsAndRemovesOneHeader) {
  director.routing.remove_headers = {"x-gateway-destination-endpoint", "x-slo-ttft-ms"};
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  EXPECT_THAT(sink->answers[0].removed, ElementsAre("x-slo-ttft-ms"));
}

TEST_F(ProcessorTest, RefusesAtOnceAndIsSilentAfterwards) {
  auto p = Make();
  p->Refuse({503, "shutting down", "rejected-shutting-down", 1});
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kImmediate));
  EXPECT_THAT(sink->aborts, IsEmpty());
}

class SkippedBodies : public ProcessorTest {
 protected:
  std::shared_ptr<Processor> Answered(bool token_metrics) {
    ProcessorOptions options;
    options.token_metrics = token_metrics;
    auto p = Make(options);
    p->OnRequestHeaders(post, false);
    p->OnRequestBody("{}", true);
    p->OnResponseHeaders({{":status", "200"}}, false);
    return p;
  }
};

TEST_F(SkippedBodies, AreAskedForOnlyWhenNothingReadsThem) {
  Answered(true);
  EXPECT_FALSE(sink->answers.back().skip_bodies) << "token metrics read them";
  Answered(false);
  EXPECT_TRUE(sink->answers.back().skip_bodies);
  EXPECT_EQ(director.skips, 1);
  director.routing.reads_response = true;
  Answered(false);
  EXPECT_FALSE(sink->answers.back().skip_bodies) << "a plugin reads them";
  EXPECT_EQ(director.skips, 1);
}

TEST_F(SkippedBodies, EndWithTheStreamAndAreNoAbort) {
  auto p = Answered(false);
  EXPECT_EQ(director.response_ends, 0);
  p->Close();
  p->Close();
  EXPECT_EQ(director.response_ends, 1);
  EXPECT_EQ(director.cancels, 0);
}

TEST_F(SkippedBodies, PassUnreadWhenTheProxySendsThemStill) {
  auto p = Answered(false);
  p->OnResponseBody("a", false);
  p->OnResponseBody("b", true);
  EXPECT_EQ(sink->Body(Kind::kResponseBody), "ab");
  EXPECT_EQ(director.response_body, "");
  EXPECT_EQ(director.response_ends, 1);

  auto q = Answered(false);
  q->OnResponseBody("a", false);
  q->Close();
  EXPECT_EQ(director.cancels, 1) << "the end was due and did not come";
}

TEST_F(SkippedBodies, AreKnownFromTheProxysConfiguration) {
  director.routing.reads_response = true;
  auto p = Make();
  p->OnModes(BodyMode::kFullDuplex, BodyMode::kNone);
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  EXPECT_FALSE(sink->answers.back().skip_bodies);
  EXPECT_EQ(director.skips, 1);
  p->Close();
  EXPECT_EQ(director.response_ends, 1);
}

TEST_F(ProcessorTest, AnswersAStreamedBodyWithoutRepeatingIt) {
  auto p = Make();
  p->OnModes(BodyMode::kFullDuplex, BodyMode::kStreamed);
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("abc", false);
  EXPECT_TRUE(sink->answers.back().unchanged);
  EXPECT_FALSE(sink->answers.back().streamed);
  director.replace = "xyz";
  p->OnResponseBody("abc", true);
  EXPECT_FALSE(sink->answers.back().unchanged);
  EXPECT_EQ(sink->answers.back().body, "xyz");
  EXPECT_EQ(director.response_ends, 1);
}

TEST_F(ProcessorTest, RefusesAProxyThatDoesNotStreamRequestBodies) {
  for (const BodyMode mode : {BodyMode::kNone, BodyMode::kBuffered, BodyMode::kStreamed}) {
    *sink = RecordingSink();
    auto p = Make();
    p->OnModes(mode, BodyMode::kFullDuplex);
    p->OnRequestHeaders(post, false);
    EXPECT_THAT(sink->aborts, ElementsAre(testing::HasSubstr("FULL_DUPLEX_STREAMED")));
  }
}

}  // namespace
}  // namespace llmd::epp
