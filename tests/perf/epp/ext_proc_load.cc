// Drives an ext_proc server as Envoy does: many streams over few connections, one exchange a stream
// (request headers and body, the answer's headers and body), in a closed loop or at a fixed rate.
//   ext_proc_load --port P --pid PID [--streams 32] [--connections 2] [--seconds 5] [--warm 1]
//     [--rate R] [--body 300] [--chunk 16384] [--prompts N] [--sse CHUNKS] [--echo 1]
//     [--destinations 1]
// --rate: exchanges a second at fixed times; latency counts from the time an exchange was due.
// --sse: the answer is an event stream of that many chunks, each sent once the one before was
// answered. --echo: the server sends every message back. --destinations: prints "NANOSECONDS
// ADDRESS" (monotonic clock) whenever the chosen endpoint differs from the one before.
// Prints one JSON object: latency is from the request's first message to its last answer.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <memory>
#include <vector>

#include "epp/args.h"
#include "epp/h2_client.h"
#include "epp/messages.h"
#include "epp/proc_usage.h"

namespace llmd::perf {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  int port = 0, pid = 0, connections = 2;
  size_t streams = 32, sse_chunks = 0;
  double seconds = 5, warm = 1, rate = 0;
  bool echo = false, destinations = false;
  ExchangeShape shape;
};

// One concurrent exchange.
struct Worker {
  explicit Worker(const ExchangeShape& shape) : exchange(shape) {}
  Exchange exchange;
  H2Client* connection = nullptr;
  uint32_t stream = 0;
  Clock::time_point due{}, chunk_sent{};
  size_t answers = 0, body_bytes = 0, chunks = 0;
  bool answering = false, failed = false;
};

class Load final : public H2Events {
 public:
  explicit Load(const Options& options) : options_(options), epoll_(epoll_create1(0)) {
    for (int i = 0; i < options.connections; ++i) {
      connections_.push_back(std::make_unique<H2Client>(
          options.port, "/envoy.service.ext_proc.v3.ExternalProcessor/Process", *this));
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = connections_.back().get();
      epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_.back()->fd(), &event);
    }
    for (size_t i = 0; i < options.streams; ++i) {
      workers_.push_back(std::make_unique<Worker>(options.shape));
      workers_.back()->connection = connections_[i % connections_.size()].get();
      idle_.push_back(workers_.back().get());
    }
  }

  void OnMessage(void* user, std::string_view message) override {
    auto& worker = *static_cast<Worker*>(user);
    ++worker.answers;
    if (options_.echo) return OnEcho(worker);
    const Reply reply = ReadReply(message);
    switch (reply.kind) {
      case ReplyKind::kRequestHeaders:
        Destination(reply.destination);
        break;
      case ReplyKind::kRequestBody:
        worker.body_bytes += reply.body.size();
        if (reply.end_of_stream) Routed(worker);
        break;
      case ReplyKind::kResponseHeaders:
        if (options_.sse_chunks > 0) NextChunk(worker);
        break;
      case ReplyKind::kResponseBody:
        if (reply.end_of_stream) return worker.connection->Send(worker.stream, {}, true);
        if (options_.sse_chunks > 0) ChunkAnswered(worker);
        break;
      case ReplyKind::kImmediate:
      case ReplyKind::kOther:
        worker.failed = true;
        worker.connection->Send(worker.stream, {}, true);
    }
  }

  void OnEnd(void* user, bool clean) override {
    auto& worker = *static_cast<Worker*>(user);
    if (!clean || worker.failed || !worker.answering ||
        (!options_.echo && worker.body_bytes != worker.exchange.body_bytes())) {
      ++errors_;
    } else if (measuring_) {
      ++done_;
    }
    idle_.push_back(&worker);
  }

  int Run() {
    const auto begin = Clock::now();
    next_due_ = begin;
    RunUntil(begin + Seconds(options_.warm));
    const double cpu = CpuSeconds(options_.pid), own = CpuSeconds(getpid());
    measuring_ = true;
    const auto start = Clock::now();
    RunUntil(start + Seconds(options_.seconds));
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    Report(took, CpuSeconds(options_.pid) - cpu, CpuSeconds(getpid()) - own);
    return errors_ == 0 && done_ > 0 ? 0 : 1;
  }

 private:
  static Clock::duration Seconds(double s) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
  }

  void RunUntil(Clock::time_point end) {
    epoll_event events[64];
    while (Clock::now() < end) {
      StartDue();
      for (const auto& connection : connections_) connection->Flush();
      const int n = epoll_wait(epoll_, events, 64, options_.rate > 0 ? 0 : 1);
      for (int i = 0; i < n; ++i) {
        if (static_cast<H2Client*>(events[i].data.ptr)->Read()) continue;
        std::fprintf(stderr, "ext_proc_load: the server closed a connection\n");
        std::exit(1);
      }
      if (n == 0 && options_.rate > 0) usleep(200);
    }
  }

  void StartDue() {
    const auto now = Clock::now();
    if (options_.rate <= 0) {
      while (!idle_.empty()) Start(now);
      return;
    }
    while (next_due_ <= now && !idle_.empty()) {
      Start(next_due_);
      next_due_ += Seconds(1 / options_.rate);
    }
  }

  void Start(Clock::time_point due) {
    Worker& worker = *idle_.front();
    idle_.pop_front();
    worker.due = due;
    worker.answers = worker.body_bytes = worker.chunks = 0;
    worker.answering = worker.failed = false;
    worker.exchange.Renew(++number_);
    worker.stream = worker.connection->Open(&worker);
    for (const std::string& message : worker.exchange.request())
      worker.connection->Send(worker.stream, message);
  }

  // The request part is answered: the model server's answer comes.
  void Routed(Worker& worker) {
    if (measuring_) Note(latencies_, worker.due);
    worker.answering = true;
    worker.connection->Send(worker.stream, worker.exchange.response_headers());
    if (options_.sse_chunks == 0)
      worker.connection->Send(worker.stream, worker.exchange.response_body());
  }

  void NextChunk(Worker& worker) {
    worker.chunk_sent = Clock::now();
    const bool last = ++worker.chunks == options_.sse_chunks;
    worker.connection->Send(worker.stream,
                            last ? worker.exchange.sse_end() : worker.exchange.sse_chunk());
  }

  void ChunkAnswered(Worker& worker) {
    if (measuring_) Note(chunk_latencies_, worker.chunk_sent);
    NextChunk(worker);
  }

  void OnEcho(Worker& worker) {
    const size_t asked = worker.exchange.request().size();
    if (worker.answers == asked) return Routed(worker);
    if (worker.answers < asked + 1) return;
    if (options_.sse_chunks == 0) {
      if (worker.answers == asked + 2) worker.connection->Send(worker.stream, {}, true);
    } else if (worker.answers == asked + 1) {
      NextChunk(worker);
    } else if (worker.chunks == options_.sse_chunks) {
      worker.connection->Send(worker.stream, {}, true);
    } else {
      ChunkAnswered(worker);
    }
  }

  void Destination(std::string_view destination) {
    if (!options_.destinations || destination == destination_) return;
    destination_ = destination;
    std::printf("%lld %s\n", static_cast<long long>(Clock::now().time_since_epoch().count()),
                destination_.c_str());
  }

  static void Note(std::vector<float>& into, Clock::time_point since) {
    into.push_back(std::chrono::duration<float, std::micro>(Clock::now() - since).count());
  }
  static double Percentile(std::vector<float>& of, double p) {
    if (of.empty()) return 0;
    std::sort(of.begin(), of.end());
    return of[static_cast<size_t>(p * static_cast<double>(of.size() - 1))];
  }

  void Report(double took, double cpu, double own) {
    const auto n = static_cast<double>(done_);
    const auto chunks = static_cast<double>(chunk_latencies_.size());
    std::printf(
        "{\"exchanges\":%zu,\"errors\":%zu,\"rps\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,"
        "\"cpu_us\":%.1f,\"cores\":%.3f,\"own_cpu_us\":%.1f,\"rss_mb\":%.1f,\"peak_mb\":%.1f,"
        "\"chunks_per_s\":%.0f,\"chunk_p50_us\":%.0f,\"chunk_p99_us\":%.0f,\"chunk_cpu_us\":%.2f}"
        "\n",
        done_, errors_, n / took, Percentile(latencies_, 0.5), Percentile(latencies_, 0.99),
        n > 0 ? cpu / n * 1e6 : 0, cpu / took, n > 0 ? own / n * 1e6 : 0,
        StatusMegabytes(options_.pid, "VmRSS"), StatusMegabytes(options_.pid, "VmHWM"),
        chunks / took, Percentile(chunk_latencies_, 0.5), Percentile(chunk_latencies_, 0.99),
        chunks > 0 ? cpu / chunks * 1e6 : 0);
  }

  const Options options_;
  const int epoll_;
  std::vector<std::unique_ptr<H2Client>> connections_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::deque<Worker*> idle_;
  Clock::time_point next_due_{};
  uint64_t number_ = 0;
  bool measuring_ = false;
  size_t done_ = 0, errors_ = 0;
  std::vector<float> latencies_, chunk_latencies_;
  std::string destination_;
};

Options Read(Args& args) {
  Options o;
  o.port = static_cast<int>(args.Number("port", 0));
  o.pid = static_cast<int>(args.Number("pid", getpid()));
  o.connections = static_cast<int>(args.Number("connections", 2));
  o.streams = static_cast<size_t>(args.Number("streams", 32));
  o.seconds = args.Number("seconds", 5);
  o.warm = args.Number("warm", 1);
  o.rate = args.Number("rate", 0);
  o.sse_chunks = static_cast<size_t>(args.Number("sse", 0));
  o.echo = args.Number("echo", 0) != 0;
  o.destinations = args.Number("destinations", 0) != 0;
  o.shape.body_bytes = static_cast<size_t>(args.Number("body", 300));
  o.shape.chunk_bytes = static_cast<size_t>(args.Number("chunk", 16'384));
  o.shape.shared_prompts = static_cast<size_t>(args.Number("prompts", 0));
  o.shape.sse = o.sse_chunks > 0;
  args.Done();
  return o;
}

}  // namespace
}  // namespace llmd::perf

int main(int argc, char** argv) {
  llmd::perf::Args args(argc, argv);
  return llmd::perf::Load(llmd::perf::Read(args)).Run();
}
