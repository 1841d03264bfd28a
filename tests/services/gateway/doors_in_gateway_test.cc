// Every door of the gateway on the wire: clients on sockets before it, engines on sockets behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <regex>

#include "core/http/fixture.h"
#include "default_doors.h"
#include "doors/support.h"
#include "gateway/doors/key_file.h"
#include "gateway/front.h"

namespace llmd::gateway {
namespace {

using doors::Eventually;
using doors::KeyRecord;
using http::testing::RawSocket;
using http::testing::TestServer;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

// A model server: lists models, answers requests with a usage, and keeps what it was sent.
class Engine {
 public:
  explicit Engine(std::vector<std::string> models) : models_(std::move(models)) {}

  std::string address() const { return server_.address().ToString(); }
  std::vector<std::string> heads() const {  // of requests but those for models
    const std::lock_guard lock(mutex_);
    return heads_;
  }
  std::string models_head() const {
    const std::lock_guard lock(mutex_);
    return models_head_;
  }
  std::string answer = R"({"usage":{"prompt_tokens":3,"completion_tokens":4}})";
  std::string answer_header;  // "name: value"

 private:
  struct Answers {
    Engine* engine;
    http::Task<void> operator()(http::Exchange& exchange) const {
      (void)co_await exchange.ReadAll();
      http::Response response = engine->Answer(exchange.request());
      (void)co_await exchange.Send(std::move(response));
    }
  };
  http::Response Answer(const http::RequestHead& head) {
    std::string text = head.method + " " + head.target + "\n";
    for (const auto& [name, value] : head.headers.lines()) text += name + ": " + value + "\n";
    const std::lock_guard lock(mutex_);
    http::Response out;
    if (head.target == "/v1/models") {
      models_head_ = text;
      for (const std::string& model : models_)
        out.body += (out.body.empty() ? "" : ",") + (R"({"id":")" + model + "\"}");
      out.body = R"({"data":[)" + out.body + "]}";
      return out;
    }
    heads_.push_back(text);
    out.body = answer;
    if (const size_t colon = answer_header.find(": "); colon != std::string::npos)
      out.head.headers.Add(answer_header.substr(0, colon), answer_header.substr(colon + 2));
    return out;
  }

  const std::vector<std::string> models_;
  mutable std::mutex mutex_;
  std::vector<std::string> heads_;
  std::string models_head_;
  TestServer server_{Answers{this}};
};

// Sends every request to the first endpoint that it may, and keeps what it was asked.
class FirstDirector final : public sched::Director {
 public:
  struct Asked {
    sched::HeaderList headers;
    std::string pool;
    std::optional<int> priority;
    std::vector<std::string> subset;
  };
  void Route(sched::RequestInput input, std::function<void(sched::Routing)> done) override {
    const std::lock_guard lock(mutex_);
    asked_.push_back({*input.headers, input.pool, input.priority, input.subset});
    sched::Routing out;
    for (const std::string& address : all) {
      const auto& subset = input.subset;
      if (input.has_subset && std::find(subset.begin(), subset.end(), address) == subset.end())
        continue;
      out.ok = true;
      out.endpoints.push_back(address);
      out.handles.push_back(static_cast<sched::EndpointId>(out.handles.size() + 1));
    }
    done(std::move(out));
  }
  void Cancel(const std::shared_ptr<sched::RequestState>&) override {}
  sched::HeaderList OnResponseHeaders(const std::shared_ptr<sched::RequestState>&, int,
                                      const sched::HeaderList&) override {
    return {};
  }
  bool OnResponseBody(const std::shared_ptr<sched::RequestState>&, std::string_view, bool,
                      std::string*) override {
    return false;
  }
  bool wants_response_body() const override { return false; }
  bool ready() const override { return true; }
  std::vector<sched::EndpointInfo> Endpoints() const override {
    std::vector<sched::EndpointInfo> out;
    for (const std::string& address : all) {
      auto peer = http::ParseHostPort(address);
      sched::EndpointInfo& one = out.emplace_back();
      one.address = peer->host;
      one.port = peer->port;
    }
    return out;
  }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }
  void Stop() override {}
  std::vector<Asked> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

  std::vector<std::string> all;  // of the endpoints, before the front is opened

 private:
  mutable std::mutex mutex_;
  std::vector<Asked> asked_;
};

class DoorsInGateway : public ::testing::Test {
 protected:
  ~DoorsInGateway() override {
    if (front_) front_->Stop(Duration::zero());
  }
  // `known`: waits until the engines have told their models.
  void Open(bool known = true) {
    auto options = doors::ToDoorOptions(flags_, routes_, 1);
    ASSERT_TRUE(options.ok()) << options.status().ToString();
    auto made = doors::Doors::Create(std::move(*options), logger_, metrics_, SystemClock());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    doors_ = std::move(*made);
    for (const Engine* engine : engines_) director_.all.push_back(engine->address());
    front_options_.access_log = log_;
    auto opened = MakeRelayFront(front_options_, director_, *doors_, Pages(), logger_, metrics_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    front_ = std::move(*opened);
    if (known)
      ASSERT_TRUE(Eventually(
          [&] { return doors_->catalogue().view().Load()->listed.size() == engines_.size(); }));
  }
  static std::vector<LocalPage> Pages() {
    PageSources sources;
    sources.ready = [] { return true; };
    sources.metrics = [] { return std::string("# metrics\n"); };
    return ClientPages(sources);
  }
  void AddKey(std::string id, std::string_view secret,
              const std::function<void(KeyRecord&)>& change = {}) {
    KeyRecord key;
    key.id = std::move(id);
    key.sha256 = doors::HashSecret(secret);
    key.tenant = "acme";
    if (change) change(key);
    keys_.push_back(std::move(key));
    flags_.api_keys_file = folder_.Write("keys.yaml", doors::FormatKeyFile(keys_));
  }
  // To the end of the connection.
  std::string Ask(const std::string& line, const std::string& lines = "",
                  const std::string& body = "") const {
    RawSocket socket = RawSocket::Connect(front_->port());
    std::string request = line + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + lines;
    if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    socket.Send(request + "\r\n" + body);
    return socket.ReadToEnd();
  }
  std::string Chat(const std::string& lines = "", const std::string& model = "m",
                   const std::string& more = "") const {
    return Ask("POST /v1/chat/completions", lines, R"({"model":")" + model + "\"" + more + "}");
  }
  static std::string Bearer(const std::string& secret) {
    return "Authorization: Bearer " + secret + "\r\n";
  }
  double Metric(const std::string& series) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + series + " ");
    return at == std::string::npos ? -1 : std::stod(page.substr(at + series.size() + 2));
  }
  void ExpectRefused(const std::string& answer, int status, const std::string& code) const {
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 " + std::to_string(status)),
                              HasSubstr("\"code\":\"" + code + "\""), HasSubstr("x-request-id: ")));
  }

  std::shared_ptr<MemoryLogSink> log_ = std::make_shared<MemoryLogSink>();
  Logger logger_{log_, LogLevel::kInfo};
  doors::TempFolder folder_;
  MetricsRegistry metrics_;
  doors::DoorFlags flags_;
  doors::RouteFiles routes_;
  FrontOptions front_options_;
  std::vector<KeyRecord> keys_;
  Engine engine_{{"m", "shared"}}, other_{{"shared"}};
  std::vector<Engine*> engines_ = {&engine_};
  FirstDirector director_;
  std::unique_ptr<doors::Doors> doors_;
  std::unique_ptr<Front> front_;
};

TEST_F(DoorsInGateway, APathThatThereIsNotIsRefusedAndCountedAndLogged) {
  Open();
  ExpectRefused(Ask("POST /v1/nowhere", "X-Request-Id: mine\r\n", "{}"), 404, "unknown_path");
  ExpectRefused(Ask("GET /v1/chat/completions"), 405, "method_not_allowed");
  EXPECT_THAT(Ask("GET /v1/chat/completions"), HasSubstr("allow: POST, OPTIONS"));
  ExpectRefused(Ask("GET /v1/..%2fmetrics"), 400, "invalid_path");
  EXPECT_THAT(Ask("OPTIONS *"), StartsWith("HTTP/1.1 204"));
  EXPECT_THAT(engine_.heads(), IsEmpty());
  EXPECT_EQ(Metric("llmd_gateway_door_refusals_total{reason=\"path\"}"), 4);
  // A loop hands its counts over a few times a second.
  const std::regex counted("llmd_gateway_requests_total\\{[^}]*status=\"404\"\\} 1");
  EXPECT_TRUE(Eventually([&] { return std::regex_search(metrics_.Expose(), counted); }));
  const auto lines = [&] {
    std::string out;
    for (const json::Value& line : log_->Lines()) out += line.Dump() + "\n";
    return out;
  };
  EXPECT_TRUE(Eventually([&] { return lines().find("/v1/nowhere") != std::string::npos; }));
  EXPECT_THAT(lines(), AllOf(HasSubstr("\"mine\""), HasSubstr("404")));
}

TEST_F(DoorsInGateway, PagesOfItsOwnNeedNoKeyButModelsDo) {
  AddKey("k", "secret");
  Open();
  for (const char* path : {"/", "/health", "/healthz", "/ready", "/readyz", "/metrics"})
    EXPECT_THAT(Ask(std::string("GET ") + path), StartsWith("HTTP/1.1 200")) << path;
  ExpectRefused(Ask("GET /v1/models"), 401, "missing_api_key");
  EXPECT_THAT(Ask("GET /v1/models", Bearer("secret")),
              AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\"id\":\"m\"")));
  EXPECT_THAT(engine_.heads(), IsEmpty());
}

TEST_F(DoorsInGateway, ModelsAreTheUnionOfTheEngines) {
  engines_ = {&engine_, &other_};
  Open();
  const std::string list = Ask("GET /v1/models");
  EXPECT_EQ(RawSocket::Count(list, "\"id\""), 2) << list;
  EXPECT_THAT(Ask("GET /v1/models/m"), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\"m\"")));
  ExpectRefused(Ask("GET /v1/models/nobody"), 404, "model_not_found");
  const std::string head = Ask("HEAD /v1/models");
  EXPECT_THAT(head, AllOf(HasSubstr("Content-Length: "), Not(HasSubstr("\"id\""))));
}

TEST_F(DoorsInGateway, AnUnknownModelIs404OnceEveryEngineHasTold) {
  Open();
  ExpectRefused(Chat("", "nobody"), 404, "model_not_found");
  EXPECT_THAT(engine_.heads(), IsEmpty());
  EXPECT_THAT(Chat(), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(Metric("llmd_gateway_door_refusals_total{reason=\"unknown_model\"}"), 1);
}

TEST_F(DoorsInGateway, UnknownModelsPassWhereTheyMay) {
  flags_.refuse_unknown_models = false;
  Open();
  EXPECT_THAT(Chat("", "nobody"), StartsWith("HTTP/1.1 200"));
}

TEST_F(DoorsInGateway, AModelThatTheSchedulerRewritesNeedsNoEngineThatListsIt) {
  routes_.endpoints_files = {
      {"", folder_.Write("e.yaml",
                         "endpoints: []\nrewrites: [{name: r, rules: [{matches: [{model: {value: "
                         "old}}], targets: [{modelRewrite: m}]}]}]\n")}};
  Open();
  EXPECT_THAT(Chat("", "old"), StartsWith("HTTP/1.1 200"));
  ExpectRefused(Chat("", "nobody"), 404, "model_not_found");
}

TEST_F(DoorsInGateway, ALargeBodyIsReadElsewhereAndRefusedAlike) {
  Open();
  const std::string filler = R"(,"x":")" + std::string(2 << 20, 'x') + "\"";
  ExpectRefused(Chat("", "nobody", filler), 404, "model_not_found");
  EXPECT_THAT(Chat("", "m", filler), StartsWith("HTTP/1.1 200"));
  {
    RawSocket leaves = RawSocket::Connect(front_->port());
    leaves.Send("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n" +
                std::string(2'000'000, 'y'));
  }
  front_->Stop(std::chrono::seconds(5));
  EXPECT_EQ(Metric("llmd_gateway_requests_inflight"), 0);
}

TEST_F(DoorsInGateway, OnlyEnginesThatListTheModelAreOffered) {
  engines_ = {&other_, &engine_};
  Open();
  EXPECT_THAT(Chat("", "m"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Chat("", "shared"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(engine_.heads().size(), 1U);
  EXPECT_EQ(other_.heads().size(), 1U);
  EXPECT_THAT(director_.asked()[0].subset, UnorderedElementsAre(engine_.address()));
  EXPECT_THAT(director_.asked()[1].subset, IsEmpty());
}

TEST_F(DoorsInGateway, AKeyIsNeededAndStopsHere) {
  AddKey("k", "secret", [](KeyRecord& key) {
    key.priority = -3;
    key.objective = "batch";
  });
  Open();
  ExpectRefused(Chat(), 401, "missing_api_key");
  ExpectRefused(Chat(Bearer("wrong")), 401, "invalid_api_key");
  EXPECT_THAT(Chat(Bearer("wrong")), HasSubstr("www-authenticate: Bearer"));
  EXPECT_THAT(engine_.heads(), IsEmpty());
  EXPECT_THAT(Chat(Bearer("secret") + "x-llm-d-inference-fairness-id: mine\r\n"),
              StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Chat("x-api-key: secret\r\n"), StartsWith("HTTP/1.1 200"));
  for (const std::string& head : engine_.heads())
    EXPECT_THAT(head, AllOf(Not(HasSubstr("secret")), Not(HasSubstr("uthorization")))) << head;
  const FirstDirector::Asked asked = director_.asked()[0];
  EXPECT_EQ(asked.priority, -3);
  EXPECT_THAT(asked.headers, AllOf(Contains(Pair("x-llm-d-inference-fairness-id", "acme")),
                                   Contains(Pair("x-llm-d-inference-objective", "batch")),
                                   Not(Contains(Key("authorization")))));
  EXPECT_EQ(Metric("llmd_gateway_auth_failures_total{reason=\"unknown\"}"), 2);
}

TEST_F(DoorsInGateway, WithoutKeysTheClientsOwnPasses) {
  Open();
  EXPECT_THAT(Chat(Bearer("theirs")), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(engine_.heads(), Contains(HasSubstr("Authorization: Bearer theirs")));
}

TEST_F(DoorsInGateway, EnginesGetTheirOwnKeyForRequestsAndForModels) {
  AddKey("k", "secret");
  flags_.engine_api_key_file = folder_.Write("engine", "engines-own\n");
  Open();
  EXPECT_THAT(Chat(Bearer("secret")), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(engine_.heads(), Contains(AllOf(HasSubstr("authorization: Bearer engines-own"),
                                              Not(HasSubstr("secret")))));
  EXPECT_THAT(engine_.models_head(), HasSubstr("authorization: Bearer engines-own"));
}

TEST_F(DoorsInGateway, AKeysModelsAreItsOwn) {
  AddKey("k", "secret", [](KeyRecord& key) { key.models = {"m"}; });
  Open();
  EXPECT_THAT(Chat(Bearer("secret")), StartsWith("HTTP/1.1 200"));
  ExpectRefused(Chat(Bearer("secret"), "shared"), 403, "model_not_allowed");
  EXPECT_THAT(Ask("GET /v1/models", Bearer("secret")),
              AllOf(HasSubstr("\"m\""), Not(HasSubstr("shared"))));
}

TEST_F(DoorsInGateway, RequestsAMinuteAreToldAndBounded) {
  AddKey("k", "secret", [](KeyRecord& key) { key.requests_per_minute = 1; });
  Open();
  EXPECT_THAT(Chat(Bearer("secret")),
              AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("x-ratelimit-limit-requests: 1"),
                    HasSubstr("x-ratelimit-remaining-requests: 0")));
  const std::string refused = Chat(Bearer("secret"));
  ExpectRefused(refused, 429, "rate_limit_exceeded");
  EXPECT_EQ(RawSocket::Count(refused, "retry-after: "), 1);
  EXPECT_EQ(engine_.heads().size(), 1U);
}

// The estimate of the first is more than the answer's usage says.
TEST_F(DoorsInGateway, TokensAreSettledByTheAnswersUsage) {
  AddKey("k", "secret", [](KeyRecord& key) { key.tokens_per_minute = 1000; });
  Open();
  EXPECT_THAT(Chat(Bearer("secret"), "m", R"(,"max_tokens":900)"), StartsWith("HTTP/1.1 200"));
  ASSERT_TRUE(
      Eventually([&] { return Metric("llmd_gateway_tenant_tokens_total{tenant=\"acme\"}") == 7; }));
  EXPECT_THAT(Chat(Bearer("secret"), "m", R"(,"max_tokens":900)"), StartsWith("HTTP/1.1 200"));
}

TEST_F(DoorsInGateway, ARequestThatNoEngineAnsweredCostsNoTokens) {
  AddKey("k", "secret", [](KeyRecord& key) { key.tokens_per_minute = 1000; });
  engines_.clear();
  Open();
  for (int i = 0; i < 3; ++i)
    EXPECT_THAT(Chat(Bearer("secret"), "m", R"(,"max_tokens":900)"), Not(HasSubstr("rate_limit")));
}

TEST_F(DoorsInGateway, ARouteChoosesModelAndPool) {
  const std::string pools = folder_.Write(
      "pools.yaml",
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerPools\n"
      "pools: [{name: a, configFile: a.yaml}, {name: b, configFile: b.yaml}]\ndefaultPool: a\n"
      "routes: [{name: r, models: [alias], targets: [{model: m, pool: b}]}]\n");
  routes_.pools_file = pools;
  front_options_.engines = [this] {
    return std::vector<doors::EngineName>{{"b", engine_.address()}};
  };
  Open();
  EXPECT_THAT(Chat("", "alias"), StartsWith("HTTP/1.1 200"));
  const FirstDirector::Asked asked = director_.asked()[0];
  EXPECT_EQ(asked.pool, "b");
  EXPECT_THAT(asked.headers, Contains(Pair("x-llm-d-model-name-rewrite", "m")));
  EXPECT_THAT(Ask("GET /v1/models"), HasSubstr("\"alias\""));
}

TEST_F(DoorsInGateway, SteeringHeadersOfStrangersAreTakenOut) {
  flags_.trusted_cidrs = {"192.0.2.0/24"};
  Open();
  EXPECT_THAT(Chat("x-llm-d-inference-objective: top\r\nX-Mine: kept\r\n"),
              StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(
      director_.asked()[0].headers,
      AllOf(Contains(Pair("x-mine", "kept")), Not(Contains(Key("x-llm-d-inference-objective")))));
  EXPECT_THAT(engine_.heads(), Contains(Not(HasSubstr("objective"))));
}

TEST_F(DoorsInGateway, AClientBehindATrustedProxyIsTrustedByItsAddress) {
  flags_.trusted_cidrs = {"192.0.2.0/24"};
  flags_.trusted_proxies = {"127.0.0.1"};
  Open();
  const std::string top = "x-llm-d-inference-objective: top\r\n";
  EXPECT_THAT(Chat(top + "X-Forwarded-For: 192.0.2.7\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Chat(top + "X-Forwarded-For: 198.51.100.7\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(director_.asked()[0].headers, Contains(Key("x-llm-d-inference-objective")));
  EXPECT_THAT(director_.asked()[1].headers, Not(Contains(Key("x-llm-d-inference-objective"))));
}

TEST_F(DoorsInGateway, PagesOfAllowedOriginsMayCall) {
  flags_.cors_origins = {"https://app.example"};
  engine_.answer_header = "Access-Control-Allow-Origin: *";
  Open();
  const std::string preflight = "Access-Control-Request-Method: POST\r\nOrigin: ";
  EXPECT_THAT(Ask("OPTIONS /v1/chat/completions", preflight + "https://app.example\r\n"),
              AllOf(StartsWith("HTTP/1.1 204"),
                    HasSubstr("access-control-allow-origin: https://app.example")));
  ExpectRefused(Ask("OPTIONS /v1/chat/completions", preflight + "https://evil.example\r\n"), 403,
                "origin_not_allowed");
  EXPECT_THAT(Chat("Origin: https://app.example\r\n"),
              AllOf(StartsWith("HTTP/1.1 200"),
                    HasSubstr("access-control-allow-origin: https://app.example"),
                    Not(HasSubstr("Origin: *"))));
  EXPECT_THAT(Chat("Origin: https://app.example\r\n", "nobody"),
              AllOf(StartsWith("HTTP/1.1 404"),
                    HasSubstr("access-control-allow-origin: https://app.example")));
  EXPECT_THAT(Chat("Origin: https://evil.example\r\n"), Not(HasSubstr("Origin: *")));
}

TEST_F(DoorsInGateway, ConnectionsOfOneClientAreBounded) {
  flags_.connections_each = 1;
  Open();
  RawSocket first = RawSocket::Connect(front_->port());
  first.Send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(first.ReadUntil("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  const std::string refused = Ask("GET /health");
  ExpectRefused(refused, 429, "client_bound_exceeded");
  EXPECT_THAT(refused, HasSubstr("retry-after: 1"));
  first.Close();
  EXPECT_TRUE(Eventually([&] { return Ask("GET /health").starts_with("HTTP/1.1 200"); }));
  EXPECT_GE(Metric("llmd_gateway_bounded_total{bound=\"connections\",scope=\"client\"}"), 1);
}

TEST_F(DoorsInGateway, BodiesOfOneClientAndOfAllAreBounded) {
  flags_.body_bytes_each = 100'000;
  Open();
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n";
  RawSocket socket = RawSocket::Connect(front_->port());
  socket.Send(head + std::string(150'000, 'x'));
  ExpectRefused(socket.ReadToEnd(), 429, "client_bound_exceeded");
  EXPECT_TRUE(Eventually([&] { return doors_->bounds().Total(doors::Bound::kBodyBytes) == 0; }));
}

TEST_F(DoorsInGateway, HeadsThatAreBeingReadAreBounded) {
  flags_.header_bytes = 1000;
  Open();
  RawSocket socket = RawSocket::Connect(front_->port());
  socket.Send("GET /health HTTP/1.1\r\nHost: h\r\nX-Long: " + std::string(2000, 'x'));
  ExpectRefused(socket.ReadToEnd(), 503, "overloaded");
}

TEST_F(DoorsInGateway, LimitsOfAConnectionAreThoseOfTheFlags) {
  front_options_.limits.max_headers = 10;
  front_options_.limits.max_header_bytes = 2048;
  front_options_.limits.head_timeout = std::chrono::milliseconds(100);
  front_options_.limits.idle_timeout = std::chrono::milliseconds(100);
  front_options_.limits.body_timeout = std::chrono::milliseconds(100);
  Open();
  EXPECT_THAT(Ask("GET /health", "X: " + std::string(3000, 'x') + "\r\n"),
              StartsWith("HTTP/1.1 431"));
  std::string lines;
  for (int i = 0; i < 12; ++i) lines += "X-" + std::to_string(i) + ": y\r\n";
  EXPECT_THAT(Ask("GET /health", lines), StartsWith("HTTP/1.1 431"));
  RawSocket idle = RawSocket::Connect(front_->port());
  EXPECT_EQ(idle.ReadToEnd(), "");
  RawSocket slow = RawSocket::Connect(front_->port());
  slow.Send("GET /health HTTP/1.1\r\n");
  EXPECT_THAT(slow.ReadToEnd(), StartsWith("HTTP/1.1 408"));
  RawSocket body = RawSocket::Connect(front_->port());
  body.Send("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n");
  EXPECT_THAT(body.ReadToEnd(), StartsWith("HTTP/1.1 408"));
}

TEST(ClientLimits, ConnectionsLeaveRoomForEngines) {
  EXPECT_EQ(ConnectionsWithin(65'536, 1 << 20), 65'536);
  EXPECT_EQ(ConnectionsWithin(65'536, 1064), 500);
  EXPECT_EQ(ConnectionsWithin(10, 1064), 10);
  EXPECT_EQ(ConnectionsWithin(65'536, 64), 8);
}

TEST(ClientLimits, TimesHaveBounds) {
  ClientLimits limits;
  EXPECT_TRUE(CheckClientLimits(limits).ok());
  limits.idle_timeout = Duration::zero();
  EXPECT_THAT(CheckClientLimits(limits).message(), HasSubstr("--client-idle-timeout"));
}

TEST_F(DoorsInGateway, AChangedFileOfKeysIsFollowed) {
  AddKey("k", "secret");
  Open();
  EXPECT_THAT(Chat(Bearer("secret")), StartsWith("HTTP/1.1 200"));
  AddKey("new", "other");
  EXPECT_TRUE(Eventually([&] { return Chat(Bearer("other")).starts_with("HTTP/1.1 200"); }));
}

TEST_F(DoorsInGateway, AnAnthropicClientGetsItsErrors) {
  AddKey("k", "secret");
  Open();
  EXPECT_THAT(Ask("POST /v1/messages", "", R"({"model":"m"})"),
              AllOf(StartsWith("HTTP/1.1 401"), HasSubstr(R"({"type":"error","error":{)")));
}

}  // namespace
}  // namespace llmd::gateway
