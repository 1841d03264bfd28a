// Endpoints made ready once, records turned into traces when asked, paths by the body's shape,
// answers told to response hooks.
#include "llmd/sched/hooks.h"
#include "llmd/sched/scheduler.h"
#include "llmd/sched/testing/pool.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using testing::FakeEndpoint;
using ::testing::HasSubstr;
using testing::MixedPool;

const char* const kMixed[] = {"{type: prefix-cache-scorer}", "{type: queue-scorer}",
                              "{type: kv-cache-utilization-scorer}", "{type: lora-affinity-scorer}",
                              "{type: active-request-scorer}"};

std::string MixedConfig() {
  return Config({std::begin(kMixed), std::end(kMixed)});
}

RequestSpec Chat(int i) {
  RequestSpec spec;
  spec.body = R"({"model":"m","messages":[{"role":"user","content":")" +
              std::string(400, static_cast<char>('a' + i % 3)) + R"("}]})";
  spec.keep_in_flight = i % 2 == 0;
  return spec;
}

TEST(PreparedSet, DecidesAsTheListDoesWhileMetricsChange) {
  auto by_list = MakeScheduler(MixedConfig()), by_set = MakeScheduler(MixedConfig());
  std::vector<EndpointState> pool = MixedPool(20);
  auto set = by_set->Prepare(pool);
  ASSERT_TRUE(set.ok());
  for (int i = 0; i < 60; ++i) {
    const std::vector<EndpointState> fresh = MixedPool(20, static_cast<uint64_t>(i));
    for (size_t e = 0; e < pool.size(); ++e) {
      if (i % 3 == 0) {
        pool[e].metrics = fresh[e].metrics;
        ASSERT_EQ((*set)->SetMetrics(e, fresh[e].metrics), OkStatus());
      } else {
        pool[e].metrics.waiting = i;
        pool[e].metrics.kv_usage = 0.01 * static_cast<double>(e);
        (*set)->SetGauges(e, i, pool[e].metrics.running, 0.01 * static_cast<double>(e));
      }
    }
    const Decision a = Must(*by_list, Chat(i), pool);
    const StatusOr<Decision> b = by_set->Schedule(Chat(i), **set);
    ASSERT_TRUE(b.ok());
    ASSERT_EQ(ToJson(a.trace).Dump(), ToJson(b->trace).Dump()) << i;
    if (i % 4 == 0) {
      by_list->Finish(a.id);
      by_set->Finish(b->id);
    }
  }
}

TEST(PreparedSet, KnowsItsEndpointsAndRefusesTwinsAndStrangers) {
  auto s = MakeScheduler(""), other = MakeScheduler("");
  const std::vector<EndpointState> pool = {Ep("a", 3), Ep("b")};
  auto set = s->Prepare(pool);
  ASSERT_TRUE(set.ok());
  EXPECT_EQ((*set)->size(), 2u);
  EXPECT_EQ((*set)->Find("default/b"), 1);
  EXPECT_EQ((*set)->Find("b"), -1);
  EXPECT_EQ((*set)->info(0).name, "a");
  EXPECT_EQ((*set)->metrics(0).waiting, 3);
  EXPECT_THAT(s->Prepare(std::vector<EndpointState>{Ep("a"), Ep("a")}).status().message(),
              HasSubstr("two endpoints are called 'default/a'"));
  EXPECT_EQ(other->Schedule(Prompt("x"), **set).status().code(), StatusCode::kInvalidArgument);
  auto none = s->Prepare({});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(s->Schedule(Prompt("x"), **none)->denied_status, 503);
}

TEST(PreparedSet, TakesAttributesOfExtractorsOnly) {
  auto s = MakeScheduler(
      Config({"{type: core-metrics-extractor, parameters: {customMetrics: [{attributeKey: heat, "
              "metricSpec: heat}]}}",
              "{type: endpoint-attribute-scorer, parameters: {attributeKey: heat, algorithm: "
              "{type: linear_lower_is_better}}}"}));
  auto set = s->Prepare(std::vector<EndpointState>{Ep("a"), Ep("b")});
  ASSERT_TRUE(set.ok());
  const EndpointMetrics metrics = Ep("a").metrics;
  ASSERT_EQ((*set)->SetMetrics(1, metrics, {{"heat", 1}}), OkStatus());
  EXPECT_THAT(Raw(*s->Schedule(Prompt("x"), **set)), ElementsAre(0, 1));  // a has none
  ASSERT_EQ((*set)->SetMetrics(0, metrics, {{"heat", 3}}), OkStatus());
  EXPECT_THAT(Raw(*s->Schedule(Prompt("x"), **set)), ElementsAre(0, 1));
  ASSERT_EQ((*set)->SetMetrics(1, metrics), OkStatus());
  EXPECT_EQ(Raw(*s->Schedule(Prompt("x"), **set))[1], 0);
  EXPECT_FALSE((*set)->SetMetrics(0, metrics, {{"cold", 3}}).ok());
}

TEST(Scheduler, BuildsTheTraceWhenAsked) {
  auto traced = MakeScheduler(MixedConfig()), recorded = MakeScheduler(MixedConfig());
  const std::vector<EndpointState> pool = MixedPool(10);
  std::vector<Decision> kept;
  std::vector<std::string> want;
  for (int i = 0; i < 100; ++i) {
    RequestSpec spec = Chat(i);
    const Decision full = Must(*traced, spec, pool);
    want.push_back(ToJson(full.trace).Dump());
    EXPECT_EQ(ToJson(full.Trace()).Dump(), want.back());
    spec.recording = Recording::kRecord;
    kept.push_back(Must(*recorded, spec, pool));
    EXPECT_TRUE(kept.back().trace.profiles.empty());
    if (i % 3 == 0) kept.back() = Decision();  // its record goes to a later decision
  }
  recorded.reset();
  for (size_t i = 0; i < kept.size(); ++i) {
    if (i % 3 != 0) EXPECT_EQ(ToJson(kept[i].Trace()).Dump(), want[i]);
  }
  RequestSpec spec = Chat(0);
  spec.recording = Recording::kNone;
  const Decision none = Must(*traced, spec, pool);
  EXPECT_TRUE(none.ok);
  EXPECT_TRUE(none.Trace().endpoints.empty());
  EXPECT_EQ(pool[none.picked.at(0).index].info.FullName(), none.picked[0].endpoint);
}

TEST(Scheduler, ReadsTheApiFromTheBodysShape) {
  auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}));
  const std::string text(1000, 'x');
  const auto twice = [&](const std::string& body, const std::string& path) {
    RequestSpec spec;
    spec.body = body;
    spec.path = path;
    Must(*s, spec, {Ep("a")});
    return Raw(Must(*s, spec, {Ep("a")}))[0];
  };
  const std::string chat =
                        R"({"model":"c","messages":[{"role":"user","content":")" + text + R"("}]})",
                    prompt = R"({"model":"p","prompt":")" + text + R"("})",
                    input = R"({"model":"e","input":")" + text + R"("})",
                    responses = R"({"model":"r","instructions":"i","input":")" + text + R"("})";
  for (const std::string& body : {chat, prompt, input, responses, chat})
    EXPECT_EQ(twice(body, ""), 1);
  EXPECT_EQ(twice(chat, "/v1/chat/completions?api-version=7"), 1);
  RequestSpec spec;
  spec.body = chat;
  spec.path = "/foo";
  const std::vector<EndpointState> pool = {Ep("a")};
  EXPECT_THAT(s->Schedule(spec, pool).status().message(),
              HasSubstr("no parser takes the path '/foo'; known endings: chat/completions"));
  spec.path.clear();
  spec.body = R"({"model":"m"})";
  EXPECT_THAT(s->Schedule(spec, pool).status().message(), HasSubstr("messages, prompt and input"));
}

TEST(Scheduler, AFallbackThatIsConfiguredAloneTakesAnyPath) {
  auto s = MakeScheduler(
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, "
      "{type: passthrough-parser}]\nrequestHandler: {parsers: [{pluginRef: "
      "passthrough-parser}]}\n");
  RequestSpec spec;
  spec.body = "anything";
  spec.path = "/foo";
  EXPECT_TRUE(Must(*s, spec, {Ep("a")}).ok);
}

// Notes what it is told.
class Witness final : public PreRequestHook, public ResponseHook {
 public:
  explicit Witness(std::vector<std::string>* seen) : seen_(seen) {}
  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    Note("routed " + request.request_id + " " + snapshot.set->names[outcome.primary.at(0)]);
  }
  void OnHeaders(RequestContext&, const ResponseInfo& response, HeaderList& headers) override {
    headers.emplace_back("x-seen", response.endpoint->name);
    Note("headers " + std::to_string(response.status));
  }
  void OnFirstChunk(RequestContext& request, const ResponseInfo&) override {
    Note("first " + request.request_id);
  }
  void OnEnd(RequestContext&, const ResponseInfo& response) override {
    Note("end " + std::to_string(response.usage.completion_tokens) +
         (response.aborted ? " aborted" : "") + " by " + response.endpoint->name);
    if (response.usage.completion_tokens == 13) throw std::runtime_error("unlucky");
  }

 private:
  void Note(std::string what) { seen_->push_back(std::move(what)); }
  std::vector<std::string>* const seen_;
};

TEST(Scheduler, TellsResponseHooksOfAnswers) {
  std::vector<std::string> seen;
  PluginRegistry registry = BuiltinPlugins();
  ASSERT_EQ(AddPlugin(registry, {.type = "witness",
                                 .kind = "hook",
                                 .help = "Test.",
                                 .make = [&](PluginArgs&) -> StatusOr<std::unique_ptr<Plugin>> {
                                   return std::unique_ptr<Plugin>(std::make_unique<Witness>(&seen));
                                 }}),
            OkStatus());
  auto s = Scheduler::FromYaml(Config({"{type: witness}", "{type: active-request-scorer}"}),
                               {.registry = &registry});
  ASSERT_TRUE(s.ok()) << s.status().ToString();
  RequestSpec spec = Prompt("x");
  spec.request_id = "r";
  spec.keep_in_flight = true;
  const uint64_t id = Must(**s, spec, {Ep("a")}).id;
  EXPECT_THAT(*(*s)->FirstToken(id), ElementsAre(std::make_pair("x-seen", "a")));
  EXPECT_TRUE((*s)->FirstToken(id)->empty());
  EXPECT_EQ((*s)->End(id, {.usage = {.completion_tokens = 7}, .aborted = true}), OkStatus());
  EXPECT_EQ((*s)->End(id, {}), OkStatus());
  EXPECT_THAT(seen,
              ElementsAre("routed r default/a", "headers 200", "first r", "end 7 aborted by a"));
  const uint64_t unlucky = Must(**s, spec, {Ep("a")}).id;
  EXPECT_THAT((*s)->End(unlucky, {.usage = {.completion_tokens = 13}}).message(),
              HasSubstr("'witness' failed: unlucky"));
  EXPECT_THAT(Raw(Must(**s, spec, {Ep("a")})), ElementsAre(1));  // nobody is in flight
}

}  // namespace
}  // namespace llmd::sched
