#include "cli/bench/run.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "cli/bench/report.h"
#include "common/process.h"

namespace llmd::bench {
namespace {

// A server on loopback with a thread for each connection. `answer` gives the bytes to send for the
// connection's n-th request (from 0); "" closes the connection.
class Server {
 public:
  using Answer = std::function<std::string(const std::string& request, int number)>;
  explicit Server(Answer answer) : answer_(std::move(answer)) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 512), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~Server() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : open_) close(fd);
  }
  uint16_t port() const { return port_; }
  int requests() const { return requests_; }
  int connections() const { return static_cast<int>(open_.size()); }

 private:
  void Accept() {
    while (true) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      open_.push_back(fd);
      threads_.emplace_back([this, fd] { Serve(fd); });
    }
  }
  void Serve(int fd) {
    std::string in;
    char buffer[65536];
    for (int number = 0;; ++number) {
      size_t whole = 0;
      while ((whole = WholeRequest(in)) == 0) {
        const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
        if (n <= 0) return;
        in.append(buffer, static_cast<size_t>(n));
      }
      ++requests_;
      const std::string out = answer_(in.substr(0, whole), number);
      in.erase(0, whole);
      if (out.empty()) {
        shutdown(fd, SHUT_RDWR);
        return;
      }
      // In pieces, so that the reader meets split heads, chunks and lines.
      for (size_t at = 0; at < out.size(); at += 37) {
        const std::string piece = out.substr(at, 37);
        if (send(fd, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) return;
      }
    }
  }
  static size_t WholeRequest(const std::string& in) {
    const size_t head = in.find("\r\n\r\n");
    if (head == std::string::npos) return 0;
    const size_t at = in.find("Content-Length: ");
    const size_t body = at < head ? std::stoul(in.substr(at + 16)) : 0;
    return in.size() >= head + 4 + body ? head + 4 + body : 0;
  }

  Answer answer_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<int> requests_{0};
  std::thread acceptor_;
  std::vector<std::thread> threads_;
  std::vector<int> open_;  // closed at the end only, so that no number is used twice
};

std::string Chunk(const std::string& data) {
  char size[16];
  std::snprintf(size, sizeof(size), "%zx\r\n", data.size());
  return size + data + "\r\n";
}

std::string Stream(const std::string&, int) {
  const std::string event = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n";
  return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
         "chunked\r\n\r\n" +
         Chunk(event) + Chunk(event + event) +
         Chunk(
             "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n"
             "data: [DONE]\n\n") +
         "0\r\n\r\n";
}

Options For(const Server& server) {
  Options o;
  o.targets = {{.peer = {"127.0.0.1", server.port()}}};
  o.model = "m";
  o.prompt = Lengths::Fixed(30);
  o.timeout = std::chrono::seconds(20);
  return o;
}

Result Ran(const Options& options) {
  services::BlockSignals();
  auto workload = Workload::Create(options, nullptr);
  EXPECT_TRUE(workload.ok()) << workload.status().ToString();
  auto result = RunBench(options, *workload, nullptr);
  EXPECT_TRUE(result.ok()) << result.status().ToString();
  return std::move(*result);
}

TEST(RunBench, ClosedLoopOnFourThreads) {
  Server server(Stream);
  Options o = For(server);
  o.threads = 4;
  o.stages = {{.concurrency = 10, .requests = 403}};
  const Result r = Ran(o);
  EXPECT_EQ(r.total.completed(), 403u);
  EXPECT_EQ(r.total.failed(), 0u);
  EXPECT_EQ(r.total.output_tokens(), 3u * 403);
  EXPECT_EQ(r.total.gap().count(), 2u * 403);
  EXPECT_EQ(r.most_in_flight, 10u);
  EXPECT_EQ(server.connections(), 10);
  EXPECT_EQ(server.requests(), 403);
}

// Connections that end after any answer, told or not, and within a request: every one is sent.
TEST(RunBench, ServersMayCloseTheirConnections) {
  std::atomic<int> silent{0}, third{0};
  Server server([&](const std::string& request, int number) {
    // Closed instead of an answer; the client must send it again, but only on a kept connection.
    if (number == 3) return ++silent, std::string();
    std::string out = Stream(request, number);
    if (number == 2 && ++third % 2 == 0) out.insert(out.find("\r\n") + 2, "Connection: close\r\n");
    return out;
  });
  Options o = For(server);
  o.threads = 2;
  o.load = Options::Load::kConstant;
  o.stages = {{.rate = 2000, .requests = 600}};
  const Result r = Ran(o);
  EXPECT_EQ(r.total.completed(), 600u);
  EXPECT_EQ(r.total.failed(), 0u);
  EXPECT_EQ(r.reconnects, static_cast<uint64_t>(silent));
  EXPECT_GT(r.reconnects, 10u);
}

TEST(RunBench, AFreshConnectionThatIsClosedIsAFailure) {
  Server server([](const std::string&, int) { return std::string(); });
  Options o = For(server);
  o.stages = {{.concurrency = 2, .requests = 6}};
  const Result r = Ran(o);
  EXPECT_EQ(r.total.failures(Failure::kClosed) + r.total.failures(Failure::kReset), 6u);
  EXPECT_EQ(server.requests(), 6);
}

TEST(RunBench, LargeRequestsAreSentWhole) {
  std::atomic<size_t> bytes{0};
  Server server([&](const std::string& request, int number) {
    bytes += request.size();
    return Stream(request, number);
  });
  Options o = For(server);
  o.prompt = Lengths::Fixed(150'000);
  o.stages = {{.concurrency = 3, .requests = 9}};
  const Result r = Ran(o);
  EXPECT_EQ(r.total.completed(), 9u);
  EXPECT_EQ(r.total.bytes_out(), bytes);
  EXPECT_GT(r.total.bytes_out(), 9u * 700'000);
}

TEST(RunBench, ConversationsGoOnOnAnyConnection) {
  Server server(Stream);
  Options o = For(server);
  o.turns = 4;
  o.think = std::chrono::milliseconds(5);
  o.load = Options::Load::kPoisson;
  o.stages = {{.rate = 500, .requests = 50}};
  o.max_connections = 3;
  const Result r = Ran(o);
  EXPECT_EQ(r.total.completed(), 200u);
  EXPECT_LE(r.most_in_flight, 3u);
  EXPECT_LE(server.connections(), 3);
}

TEST(RunBench, ASignalEndsItWithTheRunSoFar) {
  Server server(Stream);
  Options o = For(server);
  o.load = Options::Load::kConstant;
  o.stages = {{.rate = 100, .duration = std::chrono::seconds(600)}};
  services::BlockSignals();
  const pthread_t me = pthread_self();
  std::thread later([me] {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    pthread_kill(me, SIGINT);
  });
  const Result r = Ran(o);
  later.join();
  EXPECT_EQ(r.signal, SIGINT);
  EXPECT_GT(r.total.completed(), 10u);
  EXPECT_EQ(r.total.sent(), r.total.completed() + r.total.interrupted());
  EXPECT_NE(TextReport(o, r).find("interrupted"), std::string::npos);
}

// A server that never answers some requests has a tail, however well it answers the others.
TEST(RunBench, WhatTimesOutIsInTheTail) {
  std::atomic<int> asked{0};
  std::promise<void> over;
  const std::shared_future<void> end = over.get_future().share();
  Server server([&asked, end](const std::string& request, int number) {
    if (++asked % 50 == 0) {
      end.wait();
      return std::string();
    }
    return Stream(request, number);
  });
  Options o = For(server);
  o.timeout = std::chrono::milliseconds(400);
  o.stages = {{.concurrency = 20, .requests = 400}};
  const Result r = Ran(o);
  over.set_value();
  EXPECT_EQ(r.total.failures(Failure::kTimeout), 8u);
  EXPECT_EQ(r.total.lower_bounds(), 8u);
  EXPECT_EQ(r.total.e2e().count(), 400u);
  EXPECT_GE(r.total.e2e().Percentile(99), 400'000'000);
  EXPECT_EQ(r.total.service().count(), 392u);
  EXPECT_NE(TextReport(o, r).find("of 8 that timed out"), std::string::npos);
}

TEST(RunBench, AnAddressThatDoesNotResolveIsNamed) {
  Options o;
  o.targets = {{.peer = {"no-such-host.invalid", 80}}};
  o.model = "m";
  o.stages = {{.concurrency = 1, .requests = 1}};
  auto workload = Workload::Create(o, nullptr);
  ASSERT_TRUE(workload.ok());
  const auto result = RunBench(o, *workload, nullptr);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("no-such-host.invalid"), std::string::npos);
}

}  // namespace
}  // namespace llmd::bench
