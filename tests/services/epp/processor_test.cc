#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "processor_support.h"

namespace llmd::epp {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

TEST_F(ProcessorTest, TheReportStandsOnTheLastMessageOnly) {
  director.report = {{"envoy.lb", "cost", 3}};
  director.replace = std::string(Processor::kMaxPieceBytes + 1, 'x');
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("a", false);
  p->OnResponseBody("b", true);
  for (const Recorded& a : sink->answers) {
    const bool last = &a == &sink->answers.back();
    EXPECT_THAT(a.reported, SizeIs(last ? 1 : 0));
  }
  auto q = Make();
  sink->answers.clear();
  director.response_ends = 0;
  q->OnRequestHeaders(post, false);
  q->OnRequestBody("{}", true);
  q->OnResponseHeaders({{":status", "200"}}, false);
  q->OnResponseBody("a", false);
  q->OnResponseTrailers();
  EXPECT_EQ(sink->answers.back().kind, Kind::kResponseTrailers);
  EXPECT_THAT(sink->answers.back().reported, ElementsAre("cost"));
}

TEST_F(ProcessorTest, AnAnswerThatTellsNothingEndsTheStreamAfterTheRequest) {
  director.routing.skip_response = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kRequestHeaders, Kind::kRequestBody));
  EXPECT_EQ(sink->ended, 1);
  EXPECT_EQ(director.response_ends, 1);
  p->OnResponseHeaders({{":status", "200"}}, true);  // was under way
  p->Close();
  EXPECT_EQ(director.cancels, 0);
  EXPECT_THAT(sink->answers, SizeIs(2));
}

TEST_F(ProcessorTest, TheServedEndpointIsPassedOnBeforeTheHeaders) {
  auto p = Make();
  p->OnServed("too early");
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnServed("10.0.0.1:8000");
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnServed("too late");
  EXPECT_THAT(director.served, ElementsAre("10.0.0.1:8000"));
}

TEST_F(ProcessorTest, SaysNothingBeforeTheBodyEnds) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{\"a\":", false);
  EXPECT_THAT(sink->answers, IsEmpty());
  EXPECT_EQ(director.routes, 0);
  p->OnRequestBody("1}", true);
  EXPECT_EQ(director.body, "{\"a\":1}");
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kRequestHeaders, Kind::kRequestBody));
  EXPECT_EQ(sink->Body(Kind::kRequestBody), "{\"a\":1}");
  EXPECT_TRUE(sink->answers[1].end);
}

TEST_F(ProcessorTest, NamesTheSameEndpointInHeaderAndMetadata) {
  director.routing.endpoints = {"10.0.0.1:8000", "10.0.0.2:8000"};
  director.routing.set_headers = {{"x-prefiller-host-port", "10.0.0.3:8000"}};
  director.routing.remove_headers = {"x-prefiller-url"};
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  EXPECT_THAT(
      sink->answers[0].set,
      ElementsAre(Pair("x-gateway-destination-endpoint", "10.0.0.1:8000,10.0.0.2:8000"),
                  Pair("x-prefiller-host-port", "10.0.0.3:8000"), Pair("content-length", "2")));
  EXPECT_EQ(sink->answers[0].destination, "10.0.0.1:8000,10.0.0.2:8000");
  EXPECT_THAT(sink->answers[0].removed, ElementsAre("x-prefiller-url"));
}

TEST_F(ProcessorTest, AnswersABodilessRequestAtOnce) {
  auto p = Make();
  p->OnRequestHeaders({{":method", "GET"}, {":path", "/v1/models"}}, true);
  EXPECT_FALSE(director.had_body);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kRequestHeaders));
}

TEST_F(ProcessorTest, GivesOnePieceForAnEmptyBody) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("", true);
  ASSERT_THAT(sink->answers, SizeIs(2));
  EXPECT_EQ(sink->answers[1].body, "");
  EXPECT_TRUE(sink->answers[1].end);
}

TEST_F(ProcessorTest, CutsLargeBodiesAndEndsOnce) {
  const std::string body(450'000, 'x');
  auto p = Make();
  p->OnRequestHeaders(post, false);
  for (size_t at = 0; at < body.size(); at += 16'384)
    p->OnRequestBody(body.substr(at, 16'384), at + 16'384 >= body.size());
  EXPECT_EQ(sink->Body(Kind::kRequestBody), body);
  int ends = 0;
  for (const Recorded& r : sink->answers) {
    EXPECT_LE(r.body.size(), Processor::kMaxPieceBytes);
    ends += r.end;
  }
  EXPECT_EQ(ends, 1);
  EXPECT_TRUE(sink->answers.back().end);
}

TEST_F(ProcessorTest, TakesTrailersAsTheEndOfTheBody) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", false);
  p->OnRequestTrailers();
  EXPECT_THAT(sink->Kinds(),
              ElementsAre(Kind::kRequestHeaders, Kind::kRequestBody, Kind::kRequestTrailers));
  EXPECT_FALSE(sink->answers[1].end);
}

TEST_F(ProcessorTest, AppliesBodyEdits) {
  director.routing.body_edits = {{1, 4, "xyz1"}, {6, 6, "+"}};
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("0123456789", true);
  EXPECT_EQ(sink->Body(Kind::kRequestBody), "0xyz145+6789");
}

TEST_F(ProcessorTest, RefusesWithReasonAndRetryAfter) {
  director.routing = {};
  director.routing.denial = {429, "no capacity", "rejected-saturated", 2, {}};
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  ASSERT_THAT(sink->answers, SizeIs(1));
  EXPECT_EQ(sink->answers[0].kind, Kind::kImmediate);
  EXPECT_EQ(sink->answers[0].status, 429);
  EXPECT_EQ(sink->answers[0].body, "inference error: ResourceExhausted - no capacity");
  EXPECT_THAT(sink->answers[0].set,
              testing::Contains(Pair("x-llm-d-request-dropped-reason", "rejected-saturated")));
  EXPECT_THAT(sink->answers[0].set, testing::Contains(Pair("retry-after", "2")));
}

TEST_F(ProcessorTest, Gives413OverTheBodyLimitAndIgnoresTheRest) {
  ProcessorOptions options;
  options.max_body_bytes = 10;
  auto p = Make(options);
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("01234567890", false);
  p->OnRequestBody("more", true);
  ASSERT_THAT(sink->answers, SizeIs(1));
  EXPECT_EQ(sink->answers[0].status, 413);
  EXPECT_EQ(director.routes, 0);
}

class LargeBody : public ProcessorTest {
 protected:
  std::shared_ptr<Processor> Asked(size_t bytes) {
    ProcessorOptions options;
    options.offload = [this](std::function<void()> job) {
      jobs.push_back(std::move(job));
      return room;
    };
    auto p = Make(options);
    p->OnRequestHeaders(post, false);
    p->OnRequestBody(std::string(bytes, 'x'), true);
    return p;
  }
  std::vector<std::function<void()>> jobs;
  bool room = true;
};

TEST_F(LargeBody, IsRoutedOnAnotherThread) {
  const auto p = Asked(ProcessorOptions::kLargeBody);
  EXPECT_EQ(director.routes, 0);
  p->OnRequestTrailers();
  ASSERT_THAT(jobs, SizeIs(1));
  jobs[0]();
  EXPECT_EQ(director.body.size(), ProcessorOptions::kLargeBody);
  EXPECT_EQ(sink->Body(Kind::kRequestBody).size(), ProcessorOptions::kLargeBody);
  EXPECT_EQ(sink->answers.back().kind, Kind::kRequestTrailers);
}

TEST_F(LargeBody, IsRoutedWhereItCameWhenNoThreadHasTime) {
  room = false;
  Asked(ProcessorOptions::kLargeBody);
  EXPECT_EQ(director.routes, 1);
}

TEST_F(LargeBody, OfAClientThatLeftIsNotRouted) {
  Asked(ProcessorOptions::kLargeBody)->Close();
  jobs.at(0)();
  EXPECT_EQ(director.routes, 0);
  EXPECT_THAT(sink->answers, IsEmpty());
}

TEST_F(LargeBody, OthersAreRoutedAtOnce) {
  Asked(ProcessorOptions::kLargeBody - 1);
  EXPECT_THAT(jobs, IsEmpty());
  EXPECT_EQ(director.routes, 1);
}

TEST_F(ProcessorTest, PassesTheResponseAndTellsTheDirectorOnce) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "207"}, {"content-type", "text/event-stream"}}, false);
  p->OnResponseBody("data: 1\n\n", false);
  p->OnResponseBody("", true);
  EXPECT_EQ(director.response_status, 207);
  EXPECT_EQ(director.response_body, "data: 1\n\n");
  EXPECT_EQ(director.response_ends, 1);
  EXPECT_EQ(sink->Body(Kind::kResponseBody), "data: 1\n\n");
  EXPECT_THAT(sink->answers[2].set,
              ElementsAre(Pair("x-went-into-resp-headers", "true"), Pair("x-from-hook", "1")));
  p->Close();
  EXPECT_EQ(director.cancels, 0);
}

TEST_F(ProcessorTest, EndsAResponseByTrailersOrByHeadersAlone) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("x", false);
  p->OnResponseTrailers();
  EXPECT_EQ(director.response_ends, 1);
  EXPECT_EQ(sink->Kinds().back(), Kind::kResponseTrailers);

  auto q = Make();
  q->OnRequestHeaders(post, false);
  q->OnRequestBody("{}", true);
  q->OnResponseHeaders({{":status", "204"}}, true);
  EXPECT_EQ(director.response_ends, 2);
}

TEST_F(ProcessorTest, SendsTheReplacedChunk) {
  director.replace = "renamed";
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("original", true);
  EXPECT_EQ(sink->Body(Kind::kResponseBody), "renamed");
}

TEST_F(ProcessorTest, CancelsARequestWhoseClientLeftMidStream) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->Close();
  p->Close();
  EXPECT_EQ(director.cancels, 1);
}

TEST_F(ProcessorTest, CancelsAQueuedRequestAndStaysSilentAfterwards) {
  director.hold = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->Close();
  EXPECT_EQ(director.cancels, 1);
  director.held(director.routing);
  EXPECT_THAT(sink->answers, IsEmpty());
  EXPECT_EQ(director.cancels, 2);  // Cancel is idempotent; the late routing is given back
}

TEST_F(ProcessorTest, AnswersALateRoutingFromAnotherThread) {
  director.hold = true;
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  EXPECT_THAT(sink->answers, IsEmpty());
  director.held(director.routing);
  EXPECT_THAT(sink->Kinds(), ElementsAre(Kind::kRequestHeaders, Kind::kRequestBody));
}

TEST_F(ProcessorTest, AnEvictionEndsTheStreamAtOnceAndIsConfirmedWhenItCloses) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, false);
  p->OnResponseBody("half", false);
  const size_t before = sink->answers.size();
  director.evict({429, "request evicted by flow control", "evicted-priority", 7, {{"x-a", "b"}}});
  ASSERT_THAT(sink->answers, SizeIs(before + 1));
  const Recorded& last = sink->answers.back();
  EXPECT_EQ(last.kind, Kind::kImmediate);
  EXPECT_EQ(last.status, 429);
  EXPECT_EQ(last.body, "request evicted by flow control");
  EXPECT_THAT(last.set,
              testing::IsSupersetOf({Pair("x-llm-d-request-dropped-reason", "evicted-priority"),
                                     Pair("retry-after", "7"), Pair("x-a", "b")}));
  p->OnResponseBody("more", true);
  director.evict({429, "again", "", 1, {}});
  EXPECT_THAT(sink->answers, SizeIs(before + 1));
  EXPECT_EQ(director.response_body, "half");
  EXPECT_EQ(director.cancels, 0);
  p->Close();
  EXPECT_EQ(director.cancels, 1);
}

TEST_F(ProcessorTest, AnEvictionAfterTheEndOrWithoutAStreamDoesNothing) {
  auto p = Make();
  p->OnRequestHeaders(post, false);
  p->OnRequestBody("{}", true);
  p->OnResponseHeaders({{":status", "200"}}, true);
  const size_t before = sink->answers.size();
  director.evict({429, "late", "", 1, {}});
  EXPECT_THAT(sink->answers, SizeIs(before));
  p.reset();
  director.evict({429, "nobody there", "", 1, {}});
  EXPECT_THAT(sink->answers, SizeIs(before));
}

TEST_F(ProcessorTest, UsesTheLastSubsetHint) {
  auto p = Make();
  p->OnSubsetHint({true, {"10.0.0.1:1"}});
  p->OnRequestHeaders(post, false);
  p->OnSubsetHint({false, {}});
  p->OnSubsetHint({true, {"10.0.0.2:2"}});
  p->OnRequestBody("{}", true);
  EXPECT_THAT(director.subset, ElementsAre("10.0.0.2:2"));
}

}  // namespace
}  // namespace llmd::epp
