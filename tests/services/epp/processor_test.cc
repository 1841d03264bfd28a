#include "epp/processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::epp {
namespace {

using Kind = Answer::Kind;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

// Answers at once, or keeps the callback when `hold` is set.
class FakeDirector final : public sched::Director {
 public:
  void Route(sched::RequestInput input, std::function<void(sched::Routing)> done) override {
    ++routes;
    body = std::string(input.body);
    had_body = input.has_body;
    subset = input.subset;
    headers = *input.headers;
    if (input.state != nullptr) *input.state = state;
    evict = std::move(input.evicted);
    if (hold) {
      held = std::move(done);
    } else {
      done(routing);
    }
  }
  void Cancel(const std::shared_ptr<sched::RequestState>&) override { ++cancels; }
  HeaderList OnResponseHeaders(const std::shared_ptr<sched::RequestState>&, int status,
                               const HeaderList&) override {
    response_status = status;
    return {{"x-from-hook", "1"}};
  }
  void OnServed(const std::shared_ptr<sched::RequestState>&, std::string_view endpoint) override {
    served.emplace_back(endpoint);
  }
  std::vector<sched::ReportedAttribute> TakeReport(
      const std::shared_ptr<sched::RequestState>&) override {
    return response_ends > 0 ? report : std::vector<sched::ReportedAttribute>();
  }
  bool OnResponseBody(const std::shared_ptr<sched::RequestState>&, std::string_view chunk, bool end,
                      std::string* out) override {
    response_body += chunk;
    response_ends += end;
    if (end && !at_end.empty()) *out = std::exchange(at_end, "");
    if (!out->empty()) return true;
    *out = replace;
    return !replace.empty();
  }
  void OnResponseBodySkipped(const std::shared_ptr<sched::RequestState>&) override { ++skips; }
  bool wants_response_body() const override { return true; }
  bool ready() const override { return true; }
  std::vector<sched::EndpointInfo> Endpoints() const override { return {}; }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }
  void Stop() override {}

  // A director's own state is opaque; any address will do to tell it apart.
  std::shared_ptr<int> marker = std::make_shared<int>(0);
  std::shared_ptr<sched::RequestState> state{marker,
                                             reinterpret_cast<sched::RequestState*>(marker.get())};
  sched::Routing routing;
  bool hold = false, had_body = false;
  std::function<void(sched::Routing)> held;
  std::function<void(const sched::Denial&)> evict;
  int skips = 0;
  int routes = 0, cancels = 0, response_status = 0, response_ends = 0;
  std::string body, response_body, replace;
  std::string at_end;  // held back until the end
  std::vector<std::string> subset, served;
  std::vector<sched::ReportedAttribute> report;
  HeaderList headers;
};

struct Recorded {
  Kind kind;
  std::string body;
  bool end = false;
  int status = 0;
  HeaderList set;
  std::vector<std::string> removed;
  std::string destination;
  bool streamed = true, unchanged = false, skip_bodies = false;
  std::vector<std::string> reported = {};
};

class RecordingSink final : public AnswerSink {
 public:
  void Emit(const Answer& a) override {
    answers.push_back({a.kind, std::string(a.body), a.end_of_stream, a.status, a.set_headers,
                       a.remove_headers, a.destination, a.streamed, a.unchanged, a.skip_bodies});
    for (const sched::ReportedAttribute& r : a.report) answers.back().reported.push_back(r.name);
  }
  void Abort(const Status& status) override { aborts.push_back(status.message()); }
  void EndAnswers() override { ++ended; }
  std::vector<Kind> Kinds() const {
    std::vector<Kind> out;
    for (const Recorded& r : answers) out.push_back(r.kind);
    return out;
  }
  std::string Body(Kind kind) const {
    std::string out;
    for (const Recorded& r : answers) out += r.kind == kind ? r.body : "";
    return out;
  }
  std::vector<Recorded> answers;
  std::vector<std::string> aborts;
  int ended = 0;
};

class ProcessorTest : public testing::Test {
 protected:
  ProcessorTest() {
    director.routing.ok = true;
    director.routing.endpoints = {"10.0.0.1:8000"};
    director.routing.state = director.state;
  }
  std::shared_ptr<Processor> Make(ProcessorOptions options = {}) {
    return std::make_shared<Processor>(director, sink, options);
  }
  FakeDirector director;
  std::shared_ptr<RecordingSink> sink = std::make_shared<RecordingSink>();
  const HeaderList post{{":method", "POST"}, {":path", "/v1/completions"}};
};

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
  EXPECT_THAT(sink->answers[2].set, ElementsAre(Pair("x-from-hook", "1")));
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
