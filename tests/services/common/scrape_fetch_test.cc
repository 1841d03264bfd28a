#include "common/scrape_fetch.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

namespace llmd::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Takes one connection after another and answers each request on it with the next of `answers`; ""
// closes instead. Counts connections.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::string> answers) : answers_(std::move(answers)) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 8);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~ScriptedServer() {
    shutdown(listener_, SHUT_RDWR);
    shutdown(serving_, SHUT_RDWR);  // a kept connection
    thread_.join();
    close(listener_);
  }
  uint16_t port() const { return port_; }
  int connections() const { return connections_; }
  std::string last_request;  // after an answer came

 private:
  void Run() {
    for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0; close(fd)) {
      serving_ = fd;
      ++connections_;
      while (Serve(fd)) {
      }
    }
  }
  bool Serve(int fd) {
    std::string request;
    char c = 0;
    while (!request.ends_with("\r\n\r\n")) {
      if (recv(fd, &c, 1, 0) != 1) return false;
      request += c;
    }
    if (next_ == answers_.size()) return false;
    last_request = request;
    const std::string& answer = answers_[next_++];
    if (answer.empty()) return false;
    return send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) > 0;
  }
  std::vector<std::string> answers_;
  size_t next_ = 0;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<int> connections_{0}, serving_{-1};
  std::thread thread_;
};

// Stands for the fetch that resolves names.
class Others final : public sched::Fetch {
 public:
  void Get(const sched::EndpointInfo& endpoint, const sched::PageSpec&, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    done("asked " + endpoint.address);
  }
  void Post(const std::string& url, std::string body, Duration,
            std::function<void(StatusOr<std::string>)> done) override {
    done("posted " + body + " to " + url);
  }
};

std::string Answer(const std::string& body) {
  return "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

class ScrapeFetchTest : public ::testing::Test {
 protected:
  StatusOr<std::string> Get(const std::string& address, uint16_t port,
                            Duration timeout = seconds(20)) {
    sched::EndpointInfo endpoint;
    endpoint.address = address;
    endpoint.port = port;
    std::promise<StatusOr<std::string>> promise;
    fetch_->Get(endpoint, {}, timeout,
                [&promise](StatusOr<std::string> page) { promise.set_value(std::move(page)); });
    return promise.get_future().get();
  }
  StatusOr<std::string> Get(const ScriptedServer& server, Duration timeout = seconds(20)) {
    return Get("127.0.0.1", server.port(), timeout);
  }
  std::shared_ptr<sched::Fetch> fetch_ = MakeScrapeFetch(std::make_shared<Others>());
};

TEST_F(ScrapeFetchTest, ReadsPageAfterPageOnOneConnection) {
  const std::string large(300'000, 'x');
  ScriptedServer server({Answer("one"), Answer(large), Answer("three")});
  EXPECT_EQ(*Get(server), "one");
  EXPECT_EQ(server.last_request, "GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:" +
                                     std::to_string(server.port()) + "\r\n\r\n");
  EXPECT_EQ(*Get(server), large);
  EXPECT_EQ(*Get(server), "three");
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(ScrapeFetchTest, AsksAgainWhenAKeptConnectionWasClosed) {
  ScriptedServer server({Answer("one"), "", Answer("two")});
  EXPECT_EQ(*Get(server), "one");
  EXPECT_EQ(*Get(server), "two");
  EXPECT_EQ(server.connections(), 2);
}

TEST_F(ScrapeFetchTest, AFreshConnectionIsNotAskedAgain) {
  ScriptedServer server({"", Answer("two")});
  EXPECT_EQ(Get(server).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(server.connections(), 1);
}

std::string Redirect(int status, const std::string& location) {
  return "HTTP/1.1 " + std::to_string(status) + " Moved\r\nlocation: " + location +
         "\r\ncontent-length: 4\r\n\r\nmove";
}

TEST_F(ScrapeFetchTest, FollowsRedirectsOnTheSameConnection) {
  for (const int status : {301, 302, 307, 308}) {
    ScriptedServer server({Redirect(status, "/metrics/"), Answer("one"), Answer("two")});
    const StatusOr<std::string> page = Get(server);
    ASSERT_TRUE(page.ok()) << page.status().ToString();
    EXPECT_EQ(*page, "one");
    EXPECT_TRUE(server.last_request.starts_with("GET /metrics/ HTTP/1.1\r\nhost: 127.0.0.1:"));
    EXPECT_EQ(*Get(server), "two");
    EXPECT_TRUE(server.last_request.starts_with("GET /metrics HTTP/1.1")) << "asks anew";
    EXPECT_EQ(server.connections(), 1);
  }
}

TEST_F(ScrapeFetchTest, FollowsARedirectToAnotherPortOfTheHost) {
  ScriptedServer there({Answer("moved")});
  ScriptedServer here(
      {Redirect(302, "http://127.0.0.1:" + std::to_string(there.port()) + "/page")});
  EXPECT_EQ(*Get(here), "moved");
  EXPECT_TRUE(there.last_request.starts_with("GET /page HTTP/1.1\r\nhost: 127.0.0.1:" +
                                             std::to_string(there.port())));
}

TEST_F(ScrapeFetchTest, RedirectsEndSomewhere) {
  ScriptedServer server({Redirect(302, "/a"), Redirect(302, "/b"), Redirect(302, "/a"),
                         Redirect(302, "/b"), Answer("too late")});
  const Status status = Get(server).status();
  EXPECT_NE(status.message().find("more than 3 redirects"), std::string::npos) << status.message();
  ScriptedServer other(
      {Redirect(302, "http://10.0.0.1/metrics"), Redirect(302, "https://127.0.0.1/")});
  EXPECT_NE(Get(other).status().message().find("same scheme and host"), std::string::npos);
  EXPECT_NE(Get(other).status().message().find("same scheme and host"), std::string::npos);
}

TEST_F(ScrapeFetchTest, AStatusOtherThan2xxIsAnErrorThatNamesIt) {
  ScriptedServer server({"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\nno", Answer("one")});
  const Status status = Get(server).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(status.message().ends_with("/metrics answered 500")) << status.message();
  EXPECT_EQ(*Get(server), "one");
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(ScrapeFetchTest, SilenceEndsAtTheDeadline) {
  ScriptedServer server({"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"});
  EXPECT_EQ(Get(server, milliseconds(20)).status().code(), StatusCode::kDeadlineExceeded);
}

TEST_F(ScrapeFetchTest, NobodyListening) {
  uint16_t port = 0;
  {
    ScriptedServer server({});
    port = server.port();
  }
  const Status status = Get("127.0.0.1", port).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("Connection refused"), std::string::npos) << status.message();
}

TEST_F(ScrapeFetchTest, NamesGoToTheOtherFetch) {
  EXPECT_EQ(*Get("engine-0.example", 1), "asked engine-0.example");
}

TEST_F(ScrapeFetchTest, PostsGoToTheOtherFetch) {
  std::string answer;
  fetch_->Post("http://a/b", "{}", seconds(1),
               [&](StatusOr<std::string> a) { answer = a.value_or(a.status().message()); });
  EXPECT_EQ(answer, "posted {} to http://a/b");
}

TEST_F(ScrapeFetchTest, ManyEndpointsAtOnce) {
  std::vector<std::unique_ptr<ScriptedServer>> servers;
  std::vector<std::future<StatusOr<std::string>>> pages;
  for (int i = 0; i < 20; ++i)
    servers.push_back(
        std::make_unique<ScriptedServer>(std::vector<std::string>(5, Answer(std::to_string(i)))));
  for (int round = 0; round < 5; ++round) {
    pages.clear();
    for (const auto& server : servers)
      pages.push_back(std::async(std::launch::async, [&] { return Get(*server); }));
    for (size_t i = 0; i < pages.size(); ++i) EXPECT_EQ(*pages[i].get(), std::to_string(i));
  }
  for (const auto& server : servers) EXPECT_EQ(server->connections(), 1);
}

TEST_F(ScrapeFetchTest, DestructionCancelsWhatIsUnderWay) {
  ScriptedServer server({"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"});
  sched::EndpointInfo endpoint;
  endpoint.address = "127.0.0.1";
  endpoint.port = server.port();
  Status status;
  fetch_->Get(endpoint, {}, seconds(20),
              [&status](StatusOr<std::string> page) { status = page.status(); });
  fetch_.reset();
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace llmd::services
