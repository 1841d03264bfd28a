// A mixed load on an endpoint picker that tells what became of every exchange: short and long
// prompts, answers whole and in pieces, and clients that leave before their answer.
//   soak_load --port P [--rate R] [--seconds S] [--streams 32] [--connections 2]
// One line per exchange on stdout, times in microseconds of CLOCK_MONOTONIC:
//   SENT ANSWERED STATUS DESTINATION     STATUS 0 = routed; -1 = the stream broke the protocol
// and at the end "done EXCHANGES SECONDS". Without --rate the loop is closed. Exits 1 when a
// connection is lost.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "epp/args.h"
#include "epp/h2_client.h"
#include "epp/messages.h"

namespace llmd::perf {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kSseChunks = 8;
constexpr uint64_t kLeavesEvery = 50;  // exchanges

const ExchangeShape kShapes[] = {
    {.body_bytes = 300, .shared_prompts = 200},
    {.body_bytes = 300, .sse = true},
    {.body_bytes = 4'000, .sse = true, .shared_prompts = 50},
    {.body_bytes = 40'000, .chunk_bytes = 16'384, .shared_prompts = 20},
};

struct Worker {
  explicit Worker(const ExchangeShape& s) : shape(s), exchange(s) {}
  const ExchangeShape& shape;
  Exchange exchange;
  H2Client* connection = nullptr;
  uint32_t stream = 0;
  Clock::time_point sent{}, answered{};
  int status = -1;
  std::string destination;
  size_t body_bytes = 0, chunks = 0;
  bool leaves = false, ended = false;
};

class SoakLoad final : public H2Events {
 public:
  SoakLoad(int port, size_t streams, int connections) : epoll_(epoll_create1(0)) {
    for (int i = 0; i < connections; ++i) {
      connections_.push_back(std::make_unique<H2Client>(
          port, "/envoy.service.ext_proc.v3.ExternalProcessor/Process", *this));
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = connections_.back().get();
      epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_.back()->fd(), &event);
    }
    for (size_t i = 0; i < streams; ++i) {
      workers_.push_back(std::make_unique<Worker>(kShapes[i % std::size(kShapes)]));
      workers_.back()->connection = connections_[i % connections_.size()].get();
      idle_.push_back(workers_.back().get());
    }
  }

  void OnMessage(void* user, std::string_view message) override {
    auto& worker = *static_cast<Worker*>(user);
    const Reply reply = ReadReply(message);
    switch (reply.kind) {
      case ReplyKind::kRequestHeaders:
        worker.destination = reply.destination;
        break;
      case ReplyKind::kRequestBody:
        worker.body_bytes += reply.body.size();
        if (reply.end_of_stream) Routed(worker);
        break;
      case ReplyKind::kResponseHeaders:
        if (worker.shape.sse) NextChunk(worker);
        break;
      case ReplyKind::kResponseBody:
        if (reply.end_of_stream) return Close(worker);
        if (worker.shape.sse) NextChunk(worker);
        break;
      case ReplyKind::kImmediate:
        worker.answered = Clock::now();
        worker.status = reply.status;
        return Close(worker);
      case ReplyKind::kOther:
        worker.status = -1;
        return Close(worker);
    }
  }

  void OnEnd(void* user, bool clean) override {
    auto& worker = *static_cast<Worker*>(user);
    // A stream that closes before the request was answered has broken the protocol.
    const bool whole = worker.status != 0 || worker.body_bytes == worker.exchange.body_bytes();
    Print(worker, clean && whole ? worker.status : -1);
    ++done_;
    idle_.push_back(&worker);
  }

  int Run(double rate, double seconds) {
    const auto start = Clock::now(), end = start + Seconds(seconds);
    next_due_ = start;
    while (Clock::now() < end) {
      Begin(rate);
      Poll(1);
    }
    // What is under way may end.
    const auto patience = Clock::now() + Seconds(5);
    while (idle_.size() < workers_.size() && Clock::now() < patience) Poll(10);
    const double took = std::chrono::duration<double>(end - start).count();
    for (const auto& worker : workers_) {
      if (std::find(idle_.begin(), idle_.end(), worker.get()) == idle_.end()) Print(*worker, -1);
    }
    std::printf("done %zu %.3f\n", done_, took);
    return 0;
  }

 private:
  static Clock::duration Seconds(double s) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
  }
  static long long Micros(Clock::time_point t) {
    return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
  }
  static void Print(const Worker& worker, int status) {
    std::printf("%lld %lld %d %s\n", Micros(worker.sent),
                Micros(status < 0 ? Clock::now() : worker.answered), status,
                worker.destination.empty() ? "-" : worker.destination.c_str());
  }

  void Poll(int wait_ms) {
    for (const auto& connection : connections_) connection->Flush();
    epoll_event events[16];
    const int n = epoll_wait(epoll_, events, 16, wait_ms);
    for (int i = 0; i < n; ++i) {
      if (static_cast<H2Client*>(events[i].data.ptr)->Read()) continue;
      std::fprintf(stderr, "soak_load: the server closed a connection\n");
      std::exit(1);
    }
  }

  void Begin(double rate) {
    const auto now = Clock::now();
    if (rate <= 0) {
      while (!idle_.empty()) Start();
      return;
    }
    for (; next_due_ <= now && !idle_.empty(); next_due_ += Seconds(1 / rate)) Start();
    // A picker that cannot keep up is not pushed further behind.
    next_due_ = std::max(next_due_, now - Seconds(0.1));
  }

  void Start() {
    Worker& worker = *idle_.front();
    idle_.pop_front();
    worker.exchange.Renew(++number_);
    worker.leaves = number_ % kLeavesEvery == 0;
    worker.status = -1;
    worker.destination.clear();
    worker.body_bytes = worker.chunks = 0;
    worker.ended = false;
    worker.sent = Clock::now();
    worker.stream = worker.connection->Open(&worker);
    for (const std::string& message : worker.exchange.request())
      worker.connection->Send(worker.stream, message);
  }

  void Routed(Worker& worker) {
    worker.answered = Clock::now();
    worker.status = 0;
    if (worker.leaves) return Close(worker);
    worker.connection->Send(worker.stream, worker.exchange.response_headers());
    if (!worker.shape.sse) worker.connection->Send(worker.stream, worker.exchange.response_body());
  }

  void NextChunk(Worker& worker) {
    const bool last = ++worker.chunks == kSseChunks;
    worker.connection->Send(worker.stream,
                            last ? worker.exchange.sse_end() : worker.exchange.sse_chunk());
  }

  void Close(Worker& worker) {
    if (!worker.ended) worker.connection->Send(worker.stream, {}, true);
    worker.ended = true;
  }

  const int epoll_;
  std::vector<std::unique_ptr<H2Client>> connections_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::deque<Worker*> idle_;
  Clock::time_point next_due_{};
  uint64_t number_ = 0;
  size_t done_ = 0;
};

}  // namespace
}  // namespace llmd::perf

int main(int argc, char** argv) {
  llmd::perf::Args args(argc, argv);
  const int port = static_cast<int>(args.Number("port", 0));
  const double rate = args.Number("rate", 0), seconds = args.Number("seconds", 10);
  const auto streams = static_cast<size_t>(args.Number("streams", 32));
  const int connections = static_cast<int>(args.Number("connections", 2));
  args.Done();
  return llmd::perf::SoakLoad(port, streams, connections).Run(rate, seconds);
}
