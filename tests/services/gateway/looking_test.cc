// What the gateway tells of its requests: lines of the access log, counts by label, spans.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/request_observer.h"
#include "core/http/fixture.h"
#include "core/http/raw_socket.h"
#include "default_doors.h"
#include "gateway/front.h"

namespace llmd::gateway {
namespace {

using http::testing::RawSocket;
using http::testing::TestServer;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kConfig[] = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: openai-parser}
- {type: passthrough-parser}
- {type: active-request-scorer}
schedulingProfiles: [{name: p, plugins: [{pluginRef: active-request-scorer}]}]
requestHandler: {parsers: [{pluginRef: openai-parser}, {pluginRef: passthrough-parser}]}
)";

// Answers as the request's body says: in events, with usage or without, with an error, broken off.
http::Task<void> Answer(http::Exchange& exchange) {
  StatusOr<std::string> body = co_await exchange.ReadAll();
  const auto wants = [&](std::string_view word) {
    return body.ok() && body->find(word) != std::string::npos;
  };
  http::Response plain;
  plain.head.headers.Set("Content-Type", "application/json");
  plain.body = R"({"usage":{"prompt_tokens":3,"completion_tokens":5}})";
  if (wants("no-such")) plain.head.status = 404;
  if (wants("reset")) {
    exchange.Abort();
    co_return;
  }
  if (!wants("events") && !wants("break")) {
    (void)co_await exchange.Send(std::move(plain));
    co_return;
  }
  http::ResponseHead head;
  head.headers.Set("Content-Type", "text/event-stream");
  (void)co_await exchange.Start(std::move(head));
  for (int i = 0; i < 3; ++i) (void)co_await exchange.Write("data: {}\n\n");
  if (wants("break")) {
    exchange.Abort();
    co_return;
  }
  (void)co_await exchange.Write("data: [DONE]\n\n");
  (void)co_await exchange.Finish();
}

class Spans final : public SpanExporter {
 public:
  explicit Spans(std::vector<Span>& all) : all_(all) {}
  Status Export(std::span<const Span> spans) override {
    all_.insert(all_.end(), spans.begin(), spans.end());
    return OkStatus();
  }

 private:
  std::vector<Span>& all_;  // read when the tracer has stopped
};

class Looking : public testing::Test {
 protected:
  void Open(std::vector<http::HostPort> pool) {
    sched::DirectorOptions options;
    options.config_yaml = kConfig;
    options.manual = true;
    options.tracer = &tracer;
    auto made = sched::Director::Create(options, std::make_shared<sched::NoFetch>(), Logger(),
                                        metrics, SystemClock());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director = std::move(*made);
    std::vector<sched::EndpointInfo> all;
    for (const http::HostPort& address : pool) {
      sched::EndpointInfo& one = all.emplace_back();
      one.name = "e" + std::to_string(all.size());
      one.address = address.host;
      one.port = address.port;
    }
    ASSERT_TRUE(director->SetEndpoints(std::move(all)).ok());
    FrontOptions front_options;
    front_options.access_log = log;
    front_options.tracer = &tracer;
    auto opened = MakeRelayFront(front_options, *director, *doors, {}, Logger(), metrics);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    front = std::move(*opened);
  }
  // To the end of the connection.
  std::string Send(const std::string& bytes) {
    RawSocket socket = RawSocket::Connect(front->port());
    socket.Send(bytes);
    return socket.ReadToEnd();
  }
  std::string Post(const std::string& body, const std::string& path = "/v1/completions") {
    return Send("POST " + path +
                " HTTP/1.1\r\nHost: h\r\nConnection: close\r\nx-request-id: mine\r\n" +
                "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
                "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
                "\r\n\r\n" + body);
  }
  // All is told when this returns.
  void Close() {
    front->Stop(std::chrono::seconds(10));
    front.reset();
    director->Stop();
    tracer.Stop();
  }
  json::Value Line(size_t index = 0) const { return log->Lines().at(index); }
  static http::HostPort NobodyThere() {
    TestServer gone(http::testing::Echo);
    return gone.address();
  }
  double Metric(const std::string& series) const {
    const std::string page = metrics.Expose();
    const size_t at = page.find("\n" + series + " ");
    return at == std::string::npos ? -1 : std::stod(page.substr(at + series.size() + 2));
  }
  const Span* Named(std::string_view name, size_t skip = 0) const {
    for (const Span& span : spans) {
      if (span.name == name && skip-- == 0) return &span;
    }
    return nullptr;
  }

  MetricsRegistry metrics;
  std::vector<Span> spans;
  TracingOptions tracing{.sampler = TracingOptions::Sampler::kAlwaysOff};
  Tracer tracer{tracing, std::make_unique<Spans>(spans), metrics, Logger()};
  std::shared_ptr<MemoryLogSink> log = std::make_shared<MemoryLogSink>();
  TestServer engine{Answer};
  std::unique_ptr<sched::Director> director;
  std::unique_ptr<doors::Doors> doors = DefaultDoors(metrics);
  std::unique_ptr<Front> front;
};

constexpr char kSeries[] = R"({endpoint="default/e1",model="m",route="/v1/completions")";

TEST_F(Looking, APlainAnswerIsOneLineWithItsTokens) {
  Open({engine.address()});
  const std::string body = R"({"model":"m","prompt":"a secret"})";
  EXPECT_THAT(Post(body), StartsWith("HTTP/1.1 200"));
  Close();
  ASSERT_EQ(log->Lines().size(), 1U);
  const json::Value line = Line();
  EXPECT_EQ(line["msg"].AsString(), "request");
  EXPECT_EQ(line["x-request-id"].AsString(), "mine");
  EXPECT_EQ(line["traceId"].AsString(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_THAT(line["client"].AsString(), StartsWith("127.0.0.1:"));
  EXPECT_EQ(line["method"].AsString(), "POST");
  EXPECT_EQ(line["path"].AsString(), "/v1/completions");
  EXPECT_EQ(line["route"].AsString(), "/v1/completions");
  EXPECT_EQ(line["model"].AsString(), "m");
  EXPECT_EQ(line["status"].AsInt(), 200);
  EXPECT_EQ(line["endpoint"].AsString(), "default/e1");
  EXPECT_EQ(line["address"].AsString(), engine.address().ToString());
  EXPECT_EQ(line["attempts"].AsInt(), 1);
  EXPECT_EQ(line["requestBytes"].AsInt(), static_cast<int64_t>(body.size()));
  EXPECT_EQ(line["bytes"].AsInt(), 51);
  EXPECT_EQ(line["promptTokens"].AsInt(), 3);
  EXPECT_EQ(line["completionTokens"].AsInt(), 5);
  EXPECT_EQ(line.Find("estimated"), nullptr);
  EXPECT_FALSE(line["clientGone"].AsBool());
  EXPECT_LE(line["ttftSeconds"].AsDouble(), line["seconds"].AsDouble());
  EXPECT_EQ(line.Dump().find("secret"), std::string::npos);
}

TEST_F(Looking, RequestsAreCountedByRouteModelEndpointAndStatus) {
  Open({engine.address()});
  Post(R"({"model":"m","prompt":"a"})");
  Post(R"({"model":"m","prompt":"events"})");
  Close();
  const std::string series = kSeries;
  EXPECT_EQ(Metric("llmd_gateway_requests_total" + series + R"(,status="200"})"), 2);
  for (const char* name : {"ttft", "queue", "request_duration"})
    EXPECT_EQ(Metric(std::string("llmd_gateway_") + name + "_seconds_count" + series + "}"), 2)
        << name;
  EXPECT_GE(Metric("llmd_gateway_event_gap_seconds_count" + series + "}"), 0);
  EXPECT_EQ(Metric("llmd_gateway_tokens_total" + series + R"(,type="prompt"})"), 3);
  EXPECT_EQ(Metric("llmd_gateway_tokens_total" + series + R"(,type="completion"})"), 5);
  EXPECT_EQ(Metric("llmd_gateway_tokens_total" + series + R"(,type="estimated"})"), 3);
  EXPECT_EQ(Metric("llmd_gateway_request_body_bytes_total" + series + "}"), 26 + 31);
}

TEST_F(Looking, AStreamWithoutUsageIsCountedByItsEvents) {
  Open({engine.address()});
  Post(R"({"model":"m","prompt":"events","stream":true})");
  Close();
  EXPECT_EQ(Line()["completionTokens"].AsInt(), 3);
  EXPECT_TRUE(Line()["estimated"].AsBool());
  EXPECT_EQ(Line().Find("promptTokens"), nullptr);
}

TEST_F(Looking, ANameThatNoEngineKnowsIsNoLabel) {
  Open({engine.address()});
  for (int i = 0; i < 3; ++i)
    Post(R"({"model":"no-such-)" + std::to_string(i) + R"(","prompt":"a"})");
  Close();
  EXPECT_EQ(Line()["model"].AsString(), "no-such-0");
  EXPECT_EQ(
      Metric("llmd_gateway_requests_total{endpoint=\"default/e1\",model=\"other\",route=\"/v1/"
             "completions\",status=\"404\"}"),
      3);
}

TEST_F(Looking, RefusalsOfTheHttpLayerAreCountedByReasonAndLogged) {
  Open({engine.address()});
  EXPECT_THAT(Send("GET /v1/x HTTP/9.9\r\nHost: h\r\n\r\n"), HasSubstr("x-request-id: "));
  EXPECT_THAT(Send("GET / HTTP/1.1\r\nHost: h\r\nx: " + std::string(100'000, 'y') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431"));
  Close();
  EXPECT_EQ(Metric("llmd_gateway_refusals_total{reason=\"version\"}"), 1);
  EXPECT_EQ(Metric("llmd_gateway_refusals_total{reason=\"head_size\"}"), 1);
  EXPECT_EQ(Metric("llmd_gateway_refusals_total{reason=\"framing\"}"), 0);
  EXPECT_EQ(
      Metric("llmd_gateway_requests_total{endpoint=\"\",model=\"\",route=\"\",status=\"431\"}"), 1);
  ASSERT_EQ(log->Lines().size(), 2U);
  EXPECT_EQ(Line(0)["refused"].AsString(), "version");
  EXPECT_FALSE(Line(0)["x-request-id"].AsString().empty());
  EXPECT_EQ(Line(1)["status"].AsInt(), 431);
}

TEST_F(Looking, EachAttemptIsASpanAndAFailureIsCountedByKind) {
  Open({NobodyThere(), engine.address()});
  constexpr size_t kPosts = 20;  // one of them meets whom nobody has met yet
  for (size_t i = 0; i < kPosts; ++i)
    EXPECT_THAT(Post(R"({"model":"m","prompt":"a"})"), StartsWith("HTTP/1.1 200"));
  Close();
  EXPECT_EQ(Metric("llmd_gateway_upstream_failures_total{endpoint=\"default/"
                   "e1\",kind=\"refused\",stage=\"before_answer\"}"),
            1);
  size_t met = 0;
  while (met < kPosts - 1 && Line(met)["attempts"].AsInt() != 2) ++met;
  EXPECT_EQ(Line(met)["attempts"].AsInt(), 2);
  EXPECT_EQ(Line(met)["endpoint"].AsString(), "default/e2");
  size_t failed = 0;
  for (const Span& span : spans) {
    if (span.name != "gateway.upstream" || span.error.empty()) continue;
    ++failed;
    EXPECT_THAT(span.error, HasSubstr("refused"));
  }
  EXPECT_EQ(failed, 1U);
  const Span* const upstream = Named("gateway.upstream", 2);
  ASSERT_NE(upstream, nullptr);
  EXPECT_EQ(upstream->context.trace_id_high, 0x4bf92f3577b34da6U);
  EXPECT_EQ(upstream->kind, Span::Kind::kClient);
  EXPECT_NE(Named("gateway.request"), nullptr);
}

TEST_F(Looking, AnAnswerThatBreaksOffIsSaidEverywhere) {
  Open({engine.address()});
  Post(R"({"model":"m","prompt":"break"})");
  Close();
  EXPECT_TRUE(Line()["cut"].AsBool());
  EXPECT_EQ(Metric("llmd_gateway_upstream_failures_total{endpoint=\"default/"
                   "e1\",kind=\"reset\",stage=\"within_answer\"}"),
            1);
  ASSERT_NE(Named("gateway.upstream"), nullptr);
  EXPECT_FALSE(Named("gateway.upstream")->error.empty());
}

TEST(RouteLabel, IsOneOfAFixedSet) {
  using services::RouteLabel;
  for (const char* path : {"/", "/inference/v1/generate", "/v1/chat/completions",
                           "/v1/messages/count_tokens", "/v2/rerank", "/detokenize"})
    EXPECT_EQ(RouteLabel(path), path);
  for (const char* path : {"", "/v1/chat/completions/", "/v1/made-up", "/zz"})
    EXPECT_EQ(RouteLabel(path), "other");
}

}  // namespace
}  // namespace llmd::gateway
