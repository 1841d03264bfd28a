// The routes over real sockets, with a scripted engine that a test thread drives.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "engine/server.h"
#include "engine/serving/fake_engine.h"

namespace llmd::services {
namespace {

using engine::FinishReason;
using engine::Output;
using engine::Request;

// Answers every request with "ok" at once, or keeps it until the test says so.
class EchoEngine final : public engine::Engine {
 public:
  Status Submit(Request request) override {
    if (hold) {
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(request));
      changed_.notify_all();
      return OkStatus();
    }
    Output output;
    output.tokens = {'o', 'k'};
    output.finish = FinishReason::kLength;
    request.on_output(std::move(output));
    return OkStatus();
  }
  void Abort(std::string_view id) override {
    const std::lock_guard lock(mutex_);
    aborted_.emplace_back(id);
    changed_.notify_all();
  }
  engine::EngineStats Stats() const override { return {}; }
  bool healthy() const override { return alive; }
  const engine::EngineOptions& options() const override { return options_; }
  const engine::Model& model() const override { std::abort(); }
  Status ResetPrefixCache() override { return OkStatus(); }
  void Stop() override {}

  Request WaitHeld() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !held_.empty(); });
    Request request = std::move(held_.at(0));
    held_.clear();
    return request;
  }
  std::string WaitAborted() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !aborted_.empty(); });
    std::string id = aborted_.empty() ? "nothing" : aborted_.front();
    aborted_.clear();
    return id;
  }

  std::atomic<bool> hold{false}, alive{true};

 private:
  engine::EngineOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Request> held_;
  std::vector<std::string> aborted_;
};

class Connection {
 public:
  explicit Connection(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Connection() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void Send(const std::string& text) {
    EXPECT_EQ(write(fd_, text.data(), text.size()), ssize_t(text.size()));
  }
  // Until `mark` was read or the peer closed.
  std::string ReadUntil(std::string_view mark) {
    std::string all;
    char buffer[4096];
    while (all.find(mark) == std::string::npos) {
      const ssize_t n = read(fd_, buffer, sizeof(buffer));
      if (n <= 0) break;
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }
  std::string ReadAll() { return ReadUntil("\xFF never sent"); }

 private:
  int fd_;
};

class EngineHttp : public testing::Test {
 protected:
  void Start() {
    options_.model_names = {"m"};
    options_.max_model_len = 100;
    options_.vocab_size = 256;
    context_ = std::make_unique<engine::serving::ServingContext>(engine::serving::ServingContext{
        engine_, tokenizer_, no_templates_, metrics_, SystemClock(), Logger(), options_});
    routes_ = std::make_unique<EngineServer>(settings_, *context_, metrics_, http_metrics_,
                                             *workers_, Logger(sink_, LogLevel::kInfo));
    http::ServerOptions options;
    options.max_body_bytes = 1000;
    auto server = http::Server::Create(*runtime_, options, routes_->AsHandler(), Logger(),
                                       routes_->AsRefusalHook());
    ASSERT_TRUE(server.ok());
    server_ = std::move(*server);
  }
  void TearDown() override {
    server_->Stop(std::chrono::seconds(5));
    workers_->Stop();
    runtime_->Stop();
  }
  std::string Exchange(const std::string& method, const std::string& path,
                       const std::string& body = "",
                       const std::string& headers = "Content-Type: application/json\r\n") {
    Connection connection(server_->port());
    connection.Send(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" +
                    headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return connection.ReadAll();
  }
  static int Code(const std::string& reply) {
    return reply.size() > 12 ? std::stoi(reply.substr(9, 3)) : 0;
  }

  EngineSettings settings_;
  engine::serving::ServingOptions options_;
  EchoEngine engine_;
  engine::serving::ByteTokenizer tokenizer_;
  MetricsRegistry registry_;
  engine::serving::ServingMetrics metrics_{registry_, engine_, "m", 0, 100, "auto"};
  HttpMetrics http_metrics_{registry_};
  std::shared_ptr<MemoryLogSink> sink_ = std::make_shared<MemoryLogSink>();
  text::ChatTemplates no_templates_;
  std::unique_ptr<engine::serving::ServingContext> context_;
  std::unique_ptr<WorkerPool> workers_ = std::move(*WorkerPool::Create({}));
  std::unique_ptr<EngineServer> routes_;
  std::unique_ptr<http::Runtime> runtime_ = std::move(*http::Runtime::Create(2));
  std::unique_ptr<http::Server> server_;
};

TEST_F(EngineHttp, CompletesWholeAndStreamed) {
  Start();
  const std::string whole = Exchange("POST", "/v1/completions", R"({"prompt":"a","max_tokens":2})");
  EXPECT_EQ(Code(whole), 200);
  EXPECT_NE(whole.find(R"("text":"ok")"), std::string::npos) << whole;
  const std::string stream = Exchange("POST", "/v1/completions", R"({"prompt":"a","stream":true})");
  EXPECT_NE(stream.find("text/event-stream; charset=utf-8"), std::string::npos);
  EXPECT_NE(stream.find("data: [DONE]\n\n"), std::string::npos) << stream;
}

TEST_F(EngineHttp, ErrorsHaveVllmsShapes) {
  Start();
  EXPECT_EQ(Code(Exchange("POST", "/v1/completions", "{")), 400);
  EXPECT_EQ(Code(Exchange("POST", "/v1/completions", R"({"prompt":"a","model":"x"})")), 404);
  EXPECT_EQ(Code(Exchange("POST", "/v1/completions", R"({"prompt":"a"})", "")), 400);
  EXPECT_EQ(Code(Exchange("POST", "/v1/completions", R"({"prompt":"a"})",
                          "Content-Type: Application/JSON; charset=utf-8\r\n")),
            200);
  const std::string unknown = Exchange("GET", "/nothing");
  EXPECT_EQ(Code(unknown), 404);
  EXPECT_NE(unknown.find(R"({"detail":"Not Found"})"), std::string::npos);
  const std::string method = Exchange("GET", "/v1/completions");
  EXPECT_EQ(Code(method), 405);
  EXPECT_NE(method.find(R"({"detail":"Method Not Allowed"})"), std::string::npos);
}

TEST_F(EngineHttp, SmallRoutes) {
  Start();
  EXPECT_EQ(Code(Exchange("GET", "/health")), 200);
  EXPECT_EQ(Code(Exchange("POST", "/ping")), 200);
  EXPECT_EQ(Code(Exchange("GET", "/health/ready")), 200);
  EXPECT_NE(Exchange("GET", "/v1/models").find(R"("id":"m")"), std::string::npos);
  EXPECT_NE(Exchange("GET", "/version").find(R"({"version":")"), std::string::npos);
  EXPECT_NE(Exchange("GET", "/load").find(R"({"server_load":0})"), std::string::npos);
  EXPECT_NE(Exchange("GET", "/metrics").find("vllm:num_requests_waiting{"), std::string::npos);
  EXPECT_NE(Exchange("POST", "/tokenize", R"({"prompt":"a"})").find("[97]"), std::string::npos);
  EXPECT_NE(Exchange("POST", "/detokenize", R"({"tokens":[97]})").find(R"({"prompt":"a"})"),
            std::string::npos);
  EXPECT_EQ(Code(Exchange("POST", "/reset_prefix_cache")), 404);
  routes_->BeginDrain();
  EXPECT_EQ(Code(Exchange("GET", "/health/ready")), 503);
  engine_.alive = false;
  EXPECT_EQ(Code(Exchange("GET", "/health")), 503);
}

TEST_F(EngineHttp, ApiKeysGuardOnlyTheApi) {
  settings_.api_keys = {"secret", "other"};
  Start();
  const std::string refused = Exchange("GET", "/v1/models");
  EXPECT_EQ(Code(refused), 401);
  EXPECT_NE(refused.find(R"({"error":"Unauthorized"})"), std::string::npos);
  EXPECT_EQ(Code(Exchange("GET", "/v1/models", "", "Authorization: Bearer other\r\n")), 200);
  EXPECT_EQ(Code(Exchange("GET", "/v1/models", "", "Authorization: Bearer othe\r\n")), 401);
  EXPECT_EQ(Code(Exchange("GET", "/health")), 200);
}

TEST_F(EngineHttp, RequestIdsAndRootPath) {
  settings_.enable_request_id_headers = true;
  settings_.root_path = "/llm";
  Start();
  const std::string echoed = Exchange("POST", "/llm/v1/completions", R"({"prompt":"a"})",
                                      "Content-Type: application/json\r\nX-Request-Id: abc\r\n");
  EXPECT_NE(echoed.find("X-Request-Id: abc\r\n"), std::string::npos) << echoed;
  EXPECT_NE(echoed.find(R"("id":"cmpl-abc")"), std::string::npos);
  EXPECT_NE(Exchange("GET", "/health").find("X-Request-Id: "), std::string::npos);
}

TEST_F(EngineHttp, LogsAccess) {
  Start();
  Exchange("POST", "/v1/completions", R"({"prompt":"a"})");
  ASSERT_EQ(sink_->Lines().size(), 1u);
  const std::string line = sink_->Lines()[0]["msg"].AsString();
  EXPECT_TRUE(line.starts_with("INFO:     127.0.0.1:")) << line;
  EXPECT_TRUE(line.ends_with(R"( - "POST /v1/completions HTTP/1.1" 200 OK)")) << line;
}

TEST_F(EngineHttp, TheAccessLineHasWhatUvicornsCannotTell) {
  Start();
  Exchange("POST", "/v1/completions", R"({"prompt":"a"})",
           "Content-Type: application/json\r\nx-request-id: mine\r\n"
           "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n");
  ASSERT_EQ(sink_->Lines().size(), 1u);
  const json::Value line = sink_->Lines()[0];
  EXPECT_EQ(line["x-request-id"].AsString(), "mine");
  EXPECT_EQ(line["traceId"].AsString(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(line["route"].AsString(), "/v1/completions");
  EXPECT_EQ(line["model"].AsString(), "m");
  EXPECT_EQ(line["status"].AsInt(), 200);
  EXPECT_EQ(line["requestBytes"].AsInt(), 14);
  EXPECT_GT(line["bytes"].AsInt(), 0);
  EXPECT_EQ(line["promptTokens"].AsInt(), 1);
  EXPECT_GT(line["completionTokens"].AsInt(), 0);
}

TEST_F(EngineHttp, CountsRequestsByRouteMethodAndStatus) {
  Start();
  Exchange("POST", "/v1/completions", R"({"prompt":"a"})");
  Exchange("POST", "/v1/completions", "{");
  Exchange("GET", "/nowhere");
  Exchange("POST", "/v1/completions", std::string(2000, ' '));
  const std::string page = registry_.Expose();
  const auto counted = [&page](const std::string& labels) {
    return page.find("http_requests_total{" + labels + "} 1.0") != std::string::npos;
  };
  EXPECT_TRUE(counted(R"(handler="/v1/completions",method="POST",status="200")")) << page;
  EXPECT_TRUE(counted(R"(handler="/v1/completions",method="POST",status="400")")) << page;
  EXPECT_TRUE(counted(R"(handler="/v1/completions",method="POST",status="413")")) << page;
  EXPECT_TRUE(counted(R"(handler="none",method="GET",status="404")")) << page;
}

TEST_F(EngineHttp, ARefusalOfTheHttpLayerIsCountedAndLoggedAndHasAnId) {
  Start();
  Connection connection(server_->port());
  connection.Send("GET / HTTP/1.1\r\nno colon\r\n\r\n");
  const std::string answer = connection.ReadAll();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 400")) << answer;
  EXPECT_NE(registry_.Expose().find("llmd_http_refusals_total{reason=\"header\"} 1.0"),
            std::string::npos);
  ASSERT_EQ(sink_->Lines().size(), 1u);
  const json::Value line = sink_->Lines()[0];
  EXPECT_EQ(line["msg"].AsString(), "request refused");
  EXPECT_EQ(line["refused"].AsString(), "header");
  EXPECT_NE(answer.find("x-request-id: " + line["x-request-id"].AsString()), std::string::npos)
      << answer;
}

TEST_F(EngineHttp, AClientThatLeavesAbortsItsRequest) {
  engine_.hold = true;
  Start();
  for (const char* body : {R"({"prompt":"a"})", R"({"prompt":"a","stream":true})"}) {
    Connection connection(server_->port());
    const std::string text(body);
    connection.Send(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(text.size()) + "\r\n\r\n" + text);
    const std::string id = engine_.WaitHeld().id;
    connection.Close();
    EXPECT_EQ(engine_.WaitAborted(), id);
  }
}

}  // namespace
}  // namespace llmd::services
