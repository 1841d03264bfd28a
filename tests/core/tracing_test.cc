#include "llmd/tracing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "llmd/json.h"

namespace llmd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

StatusOr<TracingOptions> Options(const Variables& variables) {
  return TracingOptions::FromEnvironment(
      [&](const char* name) {
        const auto it = variables.find(name);
        return it == variables.end() ? std::string() : it->second;
      },
      "llm-d-epp");
}

TEST(TracingOptions, DefaultsAreThoseOfTheField) {
  const TracingOptions o = *Options({});
  EXPECT_EQ(o.exporter, TracingOptions::Exporter::kConsole);
  EXPECT_EQ(o.protocol, TracingOptions::Protocol::kGrpc);
  EXPECT_EQ(o.endpoint, "http://localhost:4317");
  EXPECT_EQ(o.sampler, TracingOptions::Sampler::kRatio);
  EXPECT_TRUE(o.parent_based);
  EXPECT_EQ(o.ratio, 0.1);
  EXPECT_EQ(o.service_name, "llm-d-epp");
}

TEST(TracingOptions, ReadsTheEnvironment) {
  const TracingOptions o = *Options({{"OTEL_TRACES_EXPORTER", "otlp"},
                                     {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"},
                                     {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"},
                                     {"OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=x=y"},
                                     {"OTEL_EXPORTER_OTLP_TIMEOUT", "250"},
                                     {"OTEL_TRACES_SAMPLER", "traceidratio"},
                                     {"OTEL_TRACES_SAMPLER_ARG", "0.5"},
                                     {"OTEL_BSP_SCHEDULE_DELAY", "10"},
                                     {"OTEL_BSP_MAX_QUEUE_SIZE", "4"},
                                     {"OTEL_SERVICE_NAME", "mine"}});
  EXPECT_EQ(o.exporter, TracingOptions::Exporter::kOtlp);
  EXPECT_EQ(o.protocol, TracingOptions::Protocol::kHttpJson);
  EXPECT_EQ(o.endpoint, "http://collector:4318/v1/traces");
  ASSERT_EQ(o.headers.size(), 2u);
  EXPECT_EQ(o.headers[1].second, "x=y");
  EXPECT_EQ(o.timeout, std::chrono::milliseconds(250));
  EXPECT_FALSE(o.parent_based);
  EXPECT_EQ(o.ratio, 0.5);
  EXPECT_EQ(o.schedule_delay, std::chrono::milliseconds(10));
  EXPECT_EQ(o.max_queue, 4u);
  EXPECT_EQ(o.max_batch, 4u);
  EXPECT_EQ(o.service_name, "mine");
}

TEST(TracingOptions, TheEndpointOfTracesIsTakenAsItStands) {
  EXPECT_EQ(Options({{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"},
                     {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1/x"},
                     {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:2"}})
                ->endpoint,
            "http://c:1/x");
  EXPECT_EQ(Options({{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"}})->endpoint,
            "http://localhost:4318/v1/traces");
  EXPECT_EQ(Options({{"OTEL_SDK_DISABLED", "true"}})->exporter, TracingOptions::Exporter::kNone);
}

TEST(TracingOptions, NamesTheVariableThatIsWrong) {
  for (const auto& [name, value] : Variables{{"OTEL_TRACES_EXPORTER", "jaeger"},
                                             {"OTEL_EXPORTER_OTLP_PROTOCOL", "udp"},
                                             {"OTEL_TRACES_SAMPLER", "sometimes"},
                                             {"OTEL_TRACES_SAMPLER_ARG", "1.5"},
                                             {"OTEL_EXPORTER_OTLP_HEADERS", "novalue"},
                                             {"OTEL_BSP_SCHEDULE_DELAY", "soon"},
                                             {"OTEL_EXPORTER_OTLP_TIMEOUT", "0"}}) {
    const auto options = Options({{name, value}});
    ASSERT_FALSE(options.ok()) << name;
    EXPECT_THAT(options.status().message(), HasSubstr(name + "='" + value + "'"));
  }
}

// Keeps what it gets; fails while told to.
class Kept final : public SpanExporter {
 public:
  struct State {
    std::mutex mutex;
    std::vector<std::string> names;
    std::vector<size_t> batches;
    bool fail = false;
  };
  explicit Kept(State& state) : state_(state) {}
  Status Export(std::span<const Span> spans) override {
    std::lock_guard lock(state_.mutex);
    if (state_.fail) return Unavailable("nobody there");
    state_.batches.push_back(spans.size());
    for (const Span& span : spans) state_.names.push_back(span.name);
    return OkStatus();
  }

 private:
  State& state_;
};

std::vector<Span> Named(const std::vector<std::string>& names) {
  std::vector<Span> out;
  for (const std::string& name : names) out.emplace_back().name = name;
  return out;
}

TEST(Tracer, ExportsInBatchesAndAllOfItBeforeItStops) {
  Kept::State state;
  MetricsRegistry metrics;
  TracingOptions options;
  options.max_batch = 2;
  options.schedule_delay = std::chrono::hours(1);
  Tracer tracer(options, std::make_unique<Kept>(state), metrics, Logger());
  tracer.Submit(Named({"a", "b", "c"}));
  tracer.Stop();
  EXPECT_THAT(state.names, ElementsAre("a", "b", "c"));
  for (const size_t n : state.batches) EXPECT_LE(n, 2u);
  EXPECT_THAT(metrics.Expose(), HasSubstr("llm_d_epp_trace_spans_exported_total 3.0"));
}

TEST(Tracer, DropsAndCountsWhatDoesNotFit) {
  Kept::State state;
  MetricsRegistry metrics;
  TracingOptions options;
  options.max_queue = 2;
  options.max_batch = 100;
  options.schedule_delay = std::chrono::hours(1);
  Tracer tracer(options, std::make_unique<Kept>(state), metrics, Logger());
  tracer.Submit(Named({"a", "b", "c"}));
  tracer.Submit(Named({"d"}));
  EXPECT_THAT(metrics.Expose(), HasSubstr("llm_d_epp_trace_spans_dropped_total 2.0"));
  tracer.Stop();
  EXPECT_THAT(state.names, ElementsAre("a", "b"));
}

TEST(Tracer, TellsOfAnOutageOnce) {
  Kept::State state;
  state.fail = true;
  MetricsRegistry metrics;
  auto sink = std::make_shared<MemoryLogSink>();
  TracingOptions options;
  options.max_batch = 1;
  Tracer tracer(options, std::make_unique<Kept>(state), metrics, Logger(sink, LogLevel::kDefault));
  tracer.Submit(Named({"a", "b", "c"}));
  tracer.Stop();
  EXPECT_EQ(sink->Lines().size(), 1u);
  EXPECT_THAT(metrics.Expose(), HasSubstr("llm_d_epp_trace_spans_failed_total 3.0"));
}

bool Sampled(TracingOptions::Sampler sampler, double ratio, bool parent_based,
             const std::optional<TraceContext>& parent) {
  Kept::State state;
  MetricsRegistry metrics;
  TracingOptions options;
  options.sampler = sampler;
  options.ratio = ratio;
  options.parent_based = parent_based;
  return Tracer(options, std::make_unique<Kept>(state), metrics, Logger()).Start(parent).sampled;
}

TEST(Tracer, SamplesByRatioOfTheTraceIdAndFollowsTheParent) {
  using Sampler = TracingOptions::Sampler;
  const TraceContext low{1, 1000, 7, false}, high{1, ~uint64_t{0}, 7, true};
  EXPECT_TRUE(Sampled(Sampler::kRatio, 0.5, false, low));
  EXPECT_FALSE(Sampled(Sampler::kRatio, 0.5, false, high));
  EXPECT_FALSE(Sampled(Sampler::kRatio, 0.5, true, low)) << "the parent was not sampled";
  EXPECT_TRUE(Sampled(Sampler::kRatio, 0, true, high));
  EXPECT_FALSE(Sampled(Sampler::kRatio, 0, true, std::nullopt));
  EXPECT_TRUE(Sampled(Sampler::kAlwaysOn, 0, true, std::nullopt));
  EXPECT_FALSE(Sampled(Sampler::kAlwaysOff, 1, true, std::nullopt));
}

TEST(Tracer, ContinuesTheParentsTrace) {
  Kept::State state;
  MetricsRegistry metrics;
  Tracer tracer({}, std::make_unique<Kept>(state), metrics, Logger());
  const TraceContext parent{3, 4, 5, true};
  const TraceContext child = tracer.Start(parent);
  EXPECT_EQ(child.trace_id_high, 3u);
  EXPECT_EQ(child.trace_id_low, 4u);
  EXPECT_NE(child.span_id, 5u);
}

TEST(SpanLog, NestsAsSpansAreBegun) {
  FakeClock clock(1000);
  SpanLog log({1, 2, 3, true}, 9, clock);
  log.Begin("root", Span::Kind::kServer);
  clock.Advance(Duration(5));
  log.Begin("child");
  log.Add("n", int64_t{4});
  log.Fail("broken");
  log.End();
  {
    const ScopedSpan scoped(&log, "second");
  }
  {
    const ScopedSpan nothing(nullptr, "second");
  }
  log.AddToRoot("status", int64_t{200});
  const std::vector<Span> spans = log.Finish();
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].context.span_id, 3u);
  EXPECT_EQ(spans[0].parent_span_id, 9u);
  EXPECT_EQ(spans[0].end_unix_nanos, 1005);
  EXPECT_EQ(spans[1].parent_span_id, 3u);
  EXPECT_EQ(spans[1].context.trace_id_low, 2u);
  EXPECT_EQ(spans[1].start_unix_nanos, 1005);
  EXPECT_EQ(spans[1].error, "broken");
  EXPECT_EQ(spans[2].parent_span_id, 3u);
  EXPECT_NE(spans[1].context.span_id, spans[2].context.span_id);
}

std::vector<Span> OneSpan() {
  Span span;
  span.context = {0x0102030405060708, 0x1112131415161718, 0x2122232425262728, true};
  span.parent_span_id = 0x31;
  span.name = "n";
  span.kind = Span::Kind::kServer;
  span.start_unix_nanos = 1;
  span.end_unix_nanos = 2;
  span.attributes = {{"s", std::string("x")}, {"i", int64_t{-1}}, {"d", 0.5}, {"b", true}};
  span.error = "e";
  return {span};
}

// The bytes as the protobuf runtime writes them (checked against opentelemetry-proto in
// tests/e2e/test_tracing.py); here the framing of one message.
TEST(Otlp, ProtobufFramesEveryField) {
  std::vector<Span> spans = OneSpan();
  spans[0].attributes.clear();
  spans[0].error.clear();
  const std::string bytes = OtlpProtobuf(spans, "svc");
  const std::string span =
      std::string("\x0a\x10\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18", 18) +
      std::string("\x12\x08\x21\x22\x23\x24\x25\x26\x27\x28", 10) +
      std::string("\x22\x08\0\0\0\0\0\0\0\x31", 10) + "\x2a\x01n" + "\x30\x02" +
      std::string("\x39\x01\0\0\0\0\0\0\0", 9) + std::string("\x41\x02\0\0\0\0\0\0\0", 9) +
      std::string("\x85\x01\x01\0\0\0", 6);
  const std::string resource = std::string("\x0a\x15\x0a\x0cservice.name\x12\x05\x0a\x03svc", 23);
  EXPECT_THAT(bytes, HasSubstr(span));
  EXPECT_THAT(bytes, HasSubstr(resource));
  EXPECT_EQ(bytes[0], 0x0a);
  EXPECT_EQ(static_cast<size_t>(bytes[1]), bytes.size() - 2);
}

TEST(Otlp, JsonIsTheProtobufMapping) {
  const json::Value v = *json::Parse(OtlpJson(OneSpan(), "svc"));
  const json::Value& resource = v["resourceSpans"].AsArray()[0];
  EXPECT_EQ(resource["resource"]["attributes"].Dump(),
            R"([{"key":"service.name","value":{"stringValue":"svc"}}])");
  const json::Value& span = resource["scopeSpans"].AsArray()[0]["spans"].AsArray()[0];
  EXPECT_EQ(span["traceId"].AsString(), "01020304050607081112131415161718");
  EXPECT_EQ(span["parentSpanId"].AsString(), "0000000000000031");
  EXPECT_EQ(span["startTimeUnixNano"].AsString(), "1");
  EXPECT_EQ(span["kind"].AsInt(), 2);
  EXPECT_EQ(span["status"].Dump(), R"({"code":2,"message":"e"})");
  EXPECT_EQ(span["attributes"].AsArray()[1]["value"].Dump(), R"({"intValue":"-1"})");
}

TEST(ConsoleExporter, WritesOneLineASpan) {
  auto sink = std::make_shared<MemoryLogSink>();
  ASSERT_TRUE(ConsoleExporter(sink, "svc")->Export(OneSpan()).ok());
  ASSERT_EQ(sink->Lines().size(), 1u);
  EXPECT_EQ(sink->Lines()[0]["span"]["name"].AsString(), "n");
  EXPECT_EQ(sink->Lines()[0]["service"].AsString(), "svc");
}

}  // namespace
}  // namespace llmd
