// What a request leaves behind for those who ask later: its spans and its decision.
#include <mutex>

#include "llmd/tracing.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";
constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr char kUnsampled[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

class Kept final : public SpanExporter {
 public:
  explicit Kept(std::vector<Span>& spans) : spans_(spans) {}
  Status Export(std::span<const Span> spans) override {
    spans_.insert(spans_.end(), spans.begin(), spans.end());
    return OkStatus();
  }

 private:
  std::vector<Span>& spans_;
};

class TraceTest : public DirectorFixture {
 protected:
  void Trace() {
    tracer_ = std::make_unique<Tracer>(TracingOptions(), std::make_unique<Kept>(spans_), metrics_,
                                       Logger());
    options_.tracer = tracer_.get();
  }
  void Answer(const Routing& r, int status = 200) {
    std::string replaced;
    answer_headers_ = director_->OnResponseHeaders(r.state, status, {});
    director_->OnResponseBody(r.state, R"({"usage":{"prompt_tokens":3,"completion_tokens":5}})",
                              true, &replaced);
  }
  const Span* Find(std::string_view name) const {
    const auto it =
        std::find_if(spans_.begin(), spans_.end(), [&](const Span& s) { return s.name == name; });
    return it == spans_.end() ? nullptr : &*it;
  }
  std::string ParentOf(std::string_view name) const {
    const Span* span = Find(name);
    if (span == nullptr) return "(no span)";
    for (const Span& s : spans_) {
      if (s.context.span_id == span->parent_span_id) return s.name;
    }
    return "(outside)";
  }
  std::vector<Span> spans_;
  std::unique_ptr<Tracer> tracer_;
  HeaderList answer_headers_;
};

TEST_F(TraceTest, SpansNestAsTheFieldsDo) {
  Trace();
  Start(Two(), {"{type: decode-filter}", "{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"traceparent", kParent}});
  Answer(r);
  tracer_->Stop();
  ASSERT_NE(Find("gateway.request"), nullptr);
  EXPECT_EQ(Find("gateway.request")->parent_span_id, 0x00f067aa0ba902b7u);
  EXPECT_EQ(Find("gateway.request")->context.TraceIdHex(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(Find("gateway.request")->kind, Span::Kind::kServer);
  EXPECT_EQ(ParentOf("gateway.request_orchestration"), "gateway.request");
  EXPECT_EQ(ParentOf("run_scheduler_profile"), "gateway.request_orchestration");
  EXPECT_EQ(ParentOf("filter_endpoints"), "run_scheduler_profile");
  EXPECT_EQ(ParentOf("llm_d.epp.scoring"), "run_scheduler_profile");
  EXPECT_EQ(ParentOf("llm_d.epp.scorer.queue-scorer"), "llm_d.epp.scoring");
  EXPECT_EQ(ParentOf("pick_endpoints"), "run_scheduler_profile");
  EXPECT_EQ(Find("pick_disagg_profile"), nullptr) << "one profile only";
  EXPECT_THAT(
      Find("gateway.request")->attributes,
      AllOf(Contains(std::pair<std::string, SpanValue>("http.response.status_code", int64_t{200})),
            Contains(std::pair<std::string, SpanValue>("gen_ai.usage.output_tokens", int64_t{5}))));
  // The engine's span hangs on the request's.
  EXPECT_THAT(r.set_headers, Contains(std::pair<std::string, std::string>(
                                 "traceparent", Find("gateway.request")->context.ToTraceparent())));
}

TEST_F(TraceTest, DisaggregationHasItsSpans) {
  Trace();
  Start(
      "{name: p, address: 127.0.0.1, port: 1, labels: {llm-d.ai/role: prefill}}, "
      "{name: d, address: 127.0.0.1, port: 2, labels: {llm-d.ai/role: decode}}",
      {"{type: decode-filter}", "{type: prefill-filter}", "{type: always-disagg-pd-decider}",
       "{type: disagg-profile-handler, parameters: {deciders: {prefill: "
       "always-disagg-pd-decider}}}"},
      "schedulingProfiles: [{name: prefill, plugins: [{pluginRef: prefill-filter}]}, {name: "
      "decode, plugins: [{pluginRef: decode-filter}]}]");
  Answer(Route(kBody, {{"traceparent", kParent}}));
  tracer_->Stop();
  EXPECT_EQ(ParentOf("pick_disagg_profile"), "gateway.request_orchestration");
  EXPECT_EQ(ParentOf("run_scheduler_profile"), "pick_disagg_profile");
  EXPECT_EQ(ParentOf("prepare_disaggregation"), "gateway.request_orchestration");
}

TEST_F(TraceTest, RefusedAndAbortedRequestsFailTheirSpan) {
  Trace();
  Start(Two(), {"{type: queue-scorer}"});
  EXPECT_FALSE(Route(R"({"prompt":"p"})", {{"traceparent", kParent}}).ok);
  director_->Cancel(Route(kBody, {{"traceparent", kParent}}).state);
  tracer_->Stop();
  std::vector<std::string> errors;
  for (const Span& span : spans_) {
    if (span.name == "gateway.request") errors.push_back(span.error);
  }
  EXPECT_THAT(errors, ElementsAre("model not found in request body", "the answer did not end"));
}

TEST_F(TraceTest, UnsampledRequestsLeaveNothingButTheirIdentity) {
  Trace();
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"traceparent", kUnsampled}});
  Answer(r);
  tracer_->Stop();
  EXPECT_THAT(spans_, IsEmpty());
  const std::string sent(FindHeader(r.set_headers, "traceparent"));
  EXPECT_THAT(sent,
              AllOf(HasSubstr("-4bf92f3577b34da6a3ce929d0e0e4736-"), testing::EndsWith("-00")));
}

TEST_F(TraceTest, DecisionsAreListedNewestFirst) {
  Start(Two(), {"{type: queue-scorer}"});
  for (const char* id : {"one", "two", "three"}) {
    Route(kBody, {{"x-request-id", id}});
    clock_.Advance(std::chrono::seconds(1));
  }
  Route("{", {{"x-request-id", "bad"}});
  const json::Value list = director_->Decisions(2);
  ASSERT_THAT(list.AsArray(), SizeIs(2));
  EXPECT_EQ(list.AsArray()[0]["request_id"].AsString(), "three");
  EXPECT_EQ(list.AsArray()[1]["request_id"].AsString(), "two");
  EXPECT_THAT(list.AsArray()[0]["address"].AsString(), HasSubstr("127.0.0.1:800"));
}

TEST_F(TraceTest, PluginsShowWhatTheyKnow) {
  Start(Two(), {"{type: active-request-scorer}", "{type: prefix-cache-scorer}"});
  const Routing r = Route(R"({"model":"m","prompt":")" + std::string(1000, 'x') + "\"}");
  const json::Value state = director_->PluginState();
  const std::string chosen = r.trace->endpoints[r.trace->primary];
  EXPECT_EQ(state["inflight-load-producer"]["state"][chosen]["requests"].AsDouble(), 1);
  EXPECT_GT(state["approx-prefix-cache-producer"]["state"]["blocks"].AsInt(), 0);
  EXPECT_EQ(state["active-request-scorer"].Dump(), R"({"type":"active-request-scorer"})");
}

TEST_F(TraceTest, TheDecisionHeaderNeedsTheToken) {
  options_.explain_token = "secret";
  Start(Two(), {"{type: queue-scorer}"});
  Routing r = Route(kBody, {{"x-llm-d-explain", "secret"}});
  EXPECT_THAT(r.remove_headers, Contains("x-llm-d-explain"));
  Answer(r);
  const auto decision = json::Parse(FindHeader(answer_headers_, "x-llm-d-decision"));
  ASSERT_TRUE(decision.ok());
  const json::Value& profile = (*decision)["profiles"].AsArray()[0];
  EXPECT_THAT(profile["endpoint"].AsString(), HasSubstr("default/"));
  EXPECT_EQ(profile["tied"].AsInt(), 2);
  EXPECT_EQ(profile["margin"].AsDouble(-1), 0);
  EXPECT_EQ(profile["scores"]["queue-scorer"].AsDouble(), 1);
  for (const char* wrong : {"true", "secreT", ""}) {
    Answer(Route(kBody, {{"x-llm-d-explain", wrong}}));
    EXPECT_THAT(answer_headers_, Not(Contains(Key("x-llm-d-decision")))) << wrong;
  }
}

TEST_F(TraceTest, ARefusalIsExplainedToo) {
  options_.explain_token = "secret";
  Start(Two(), {"{type: header-based-testing-filter}"});
  const std::pair<std::string, std::string> nobody = {"test-epp-endpoint-selection", "10.9.9.9:1"};
  const Routing told = Route(kBody, {{"x-llm-d-explain", "secret"}, nobody});
  EXPECT_EQ(told.denial.http_status, 503);
  const auto decision = json::Parse(FindHeader(told.denial.headers, "x-llm-d-decision"));
  ASSERT_TRUE(decision.ok());
  EXPECT_EQ((*decision)["denied_status"].AsInt(), 503);
  EXPECT_THAT(decision->Dump(), HasSubstr("header-based-testing-filter"));
  EXPECT_THAT(Route(kBody, {nobody}).denial.headers, Not(Contains(Key("x-llm-d-decision"))));
}

TEST_F(TraceTest, WithoutATokenNobodyGetsTheDecisionHeader) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"x-llm-d-explain", ""}});
  EXPECT_THAT(r.remove_headers, Contains("x-llm-d-explain"));
  Answer(r);
  EXPECT_THAT(answer_headers_, Not(Contains(Key("x-llm-d-decision"))));
}

TEST_F(TraceTest, WithoutARingDecisionsAreNotKept) {
  options_.decision_ring = 0;
  options_.attach_trace = false;
  Start(Two(), {"{type: queue-scorer}"});
  EXPECT_TRUE(Route(kBody, {{"x-request-id", "id"}}).ok);
  EXPECT_FALSE(director_->Explain("id").ok());
  EXPECT_THAT(director_->Decisions(10).AsArray(), IsEmpty());
}

}  // namespace
}  // namespace llmd::sched
