// The load of scripts/bench.sh gateway, one thread on epoll.
//   http_load --port P --bodies FILE [--path /v1/chat/completions] [--connections 64] [--seconds 2]
//             [--warm 0.5] [--rate N] [--pids P,P] [--hold N] [--least N] [--header "Name: value"]
// FILE holds the bodies, each behind its length as four bytes, lowest first; they are sent in turn.
// Without --rate the loop is closed: each connection sends its next request when the answer is
// there. With it requests are due every 1/N s and their time is taken from when they were due, so
// that a server that stalls is seen. --hold N opens N streams, says "held" and waits for the end of
// stdin. Prints one JSON object; figures are of requests that ended in the measured seconds. The
// CPU time is that of the processes named, in the order given, over the same seconds.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <deque>
#include <fstream>
#include <iterator>
#include <sstream>

#include "epp/args.h"
#include "epp/proc_usage.h"
#include "gateway/answer_reader.h"

namespace llmd::perf {
namespace {

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Options {
  int port = 0, connections = 64, hold = 0;
  size_t least = 64;
  double seconds = 2, warm = 0.5, rate = 0;
  std::vector<std::string> requests;  // head and body
  std::vector<int> pids;
};

struct Connection {
  int fd = -1;
  const std::string* out = nullptr;
  size_t sent = 0;
  bool writing = false;
  int64_t due = 0;
  AnswerReader reader;
};

struct Figures {
  std::vector<int64_t> took, late, event_age;  // nanoseconds
  size_t done = 0, bad_status = 0, events = 0;
  double seconds = 0;
};

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

double Quantile(std::vector<int64_t>& values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<size_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return static_cast<double>(values[at]) / 1e3;
}

class Load {
 public:
  explicit Load(Options options) : options_(std::move(options)), epoll_(epoll_create1(0)) {}

  Figures Run(std::vector<double>& cpu) {
    for (int i = 0; i < std::max(options_.connections, options_.hold); ++i) Connect();
    const int64_t begin = Now();
    const auto measured = static_cast<int64_t>(options_.warm * 1e9) + begin;
    const int64_t end = measured + static_cast<int64_t>(options_.seconds * 1e9);
    std::vector<double> before;
    next_due_ = begin;
    if (options_.rate == 0) {
      for (auto& connection : connections_) Start(*connection, Now());
    }
    const int64_t patience = end + 20'000'000'000;
    int64_t now = begin;
    for (; now < end || (figures_.done < options_.least && now < patience); now = Now()) {
      if (!counting_ && now >= measured) {
        counting_ = true;
        before = Cpu();
      }
      Turn(now, now < end ? end : now + 10'000'000);
    }
    figures_.seconds = static_cast<double>(now - measured) / 1e9;
    cpu = Cpu();
    for (size_t i = 0; i < cpu.size(); ++i) cpu[i] -= before[i];
    return figures_;
  }

  // All streams opened, a few hundred at a time, each with its first event; then nothing but
  // reading.
  void Hold() {
    for (int i = 0; i < options_.hold; ++i) {
      Connect();
      Start(*connections_.back(), Now());
      if (i % 200 == 199) Settle();
    }
    Settle();
    std::printf("held\n");
    std::fflush(stdout);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = nullptr;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    while (Wait(-1)) {
    }
  }

 private:
  std::vector<double> Cpu() const {
    std::vector<double> out;
    for (const int pid : options_.pids) out.push_back(CpuSeconds(pid));
    return out;
  }

  void Settle() {
    const int64_t limit = Now() + 60'000'000'000;
    while (stream_starts_ < connections_.size()) {
      if (Now() > limit) {
        std::fprintf(stderr, "http_load: %zu of %zu streams began\n", stream_starts_,
                     connections_.size());
        std::exit(1);
      }
      Wait(1'000'000);
    }
  }

  void Connect() {
    auto c = std::make_unique<Connection>();
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(options_.port));
    if (c->fd < 0 || connect(c->fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      Die("http_load: connect");
    const int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = c.get();
    epoll_ctl(epoll_, EPOLL_CTL_ADD, c->fd, &event);
    idle_.push_back(c.get());
    connections_.push_back(std::move(c));
  }

  void Start(Connection& c, int64_t due) {
    if (!idle_.empty() && idle_.front() == &c) {
      idle_.pop_front();
    } else {
      std::erase(idle_, &c);
    }
    c.reader.Reset();
    c.due = due;
    c.out = &options_.requests[next_body_++ % options_.requests.size()];
    c.sent = 0;
    Write(c);
  }

  void Write(Connection& c) {
    const ssize_t n =
        send(c.fd, c.out->data() + c.sent, c.out->size() - c.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) Die("http_load: send");
    if (n > 0) c.sent += static_cast<size_t>(n);
    const bool more = c.sent < c.out->size();
    if (more == c.writing) return;
    c.writing = more;
    epoll_event event{};
    event.events = more ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.ptr = &c;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
  }

  void Turn(int64_t now, int64_t end) {
    int64_t wait = end - now;
    if (options_.rate > 0) {
      while (next_due_ <= now && !idle_.empty()) {
        if (counting_) figures_.late.push_back(now - next_due_);
        Start(*idle_.front(), next_due_);
        next_due_ += static_cast<int64_t>(1e9 / options_.rate);
      }
      if (!idle_.empty()) wait = std::min(wait, std::max<int64_t>(0, next_due_ - now));
    }
    Wait(wait);
  }

  // False at the end of stdin.
  bool Wait(int64_t nanos) {
    epoll_event events[256];
    timespec time{nanos / 1'000'000'000, nanos % 1'000'000'000};
    const int n = epoll_pwait2(epoll_, events, 256, nanos < 0 ? nullptr : &time, nullptr);
    for (int i = 0; i < n; ++i) {
      auto* c = static_cast<Connection*>(events[i].data.ptr);
      if (c == nullptr) return false;
      if (events[i].events & EPOLLOUT) Write(*c);
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) Read(*c);
    }
    return true;
  }

  void Read(Connection& c) {
    static char buffer[64 << 10];
    const ssize_t n = recv(c.fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) Die("http_load: the server closed a connection; recv");
    const size_t had = c.reader.events();
    const auto result = c.reader.Take({buffer, static_cast<size_t>(n)});
    if (had == 0 && c.reader.events() > 0) ++stream_starts_;
    if (counting_) {
      figures_.events += c.reader.events() - had;
      const int64_t now = c.reader.stamps().empty() ? 0 : Now();
      for (const int64_t t : c.reader.stamps()) figures_.event_age.push_back(now - t);
    }
    c.reader.stamps().clear();
    const bool held_ended = options_.hold > 0 && result == AnswerReader::Result::kDone;
    if (result == AnswerReader::Result::kBad || held_ended) {
      std::fprintf(stderr, "http_load: %s: %.*s\n", held_ended ? "a stream ended" : "bad answer",
                   static_cast<int>(n), buffer);
      std::exit(1);
    }
    if (result == AnswerReader::Result::kDone) Finish(c);
  }

  void Finish(Connection& c) {
    const int64_t now = Now();
    if (counting_) {
      ++figures_.done;
      figures_.bad_status += c.reader.status() != 200;
      figures_.took.push_back(now - c.due);
    }
    idle_.push_back(&c);
    if (options_.rate == 0) Start(c, now);
  }

  const Options options_;
  const int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::deque<Connection*> idle_;  // longest idle first, so that all are used
  size_t next_body_ = 0, stream_starts_ = 0;
  int64_t next_due_ = 0;
  bool counting_ = false;
  Figures figures_;
};

std::vector<std::string> Requests(const std::string& file, const std::string& path,
                                  const std::string& header) {
  std::ifstream in(file, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::string> out;
  for (size_t at = 0; at + 4 <= all.size();) {
    uint32_t size = 0;
    std::memcpy(&size, all.data() + at, 4);
    out.push_back("POST " + path +
                  " HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: OpenAI/Python 1.99.1\r\n"
                  "Accept: application/json\r\nContent-Type: application/json\r\n"
                  "Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n"
                  "X-Stainless-Lang: python\r\n" +
                  (header.empty() ? "" : header + "\r\n") + "Content-Length: " +
                  std::to_string(size) + "\r\n\r\n" + all.substr(at + 4, size));
    at += 4 + size;
  }
  return out;
}

void Print(Figures& f, const std::vector<double>& cpu, double own_cpu) {
  std::ostringstream list;
  for (size_t i = 0; i < cpu.size(); ++i) list << (i > 0 ? "," : "") << cpu[i];
  std::printf(
      "{\"seconds\":%.3f,\"requests\":%zu,\"bad\":%zu,\"rps\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,"
      "\"p99_us\":%.1f,"
      "\"late_p99_us\":%.1f,\"events\":%zu,\"event_p50_us\":%.1f,\"event_p99_us\":%.1f,"
      "\"own_cpu_s\":%.3f,\"cpu_s\":[%s]}\n",
      f.seconds, f.done, f.bad_status, static_cast<double>(f.done) / f.seconds,
      Quantile(f.took, .5), Quantile(f.took, .9), Quantile(f.took, .99), Quantile(f.late, .99),
      f.events, Quantile(f.event_age, .5), Quantile(f.event_age, .99), own_cpu, list.str().c_str());
}

Options Read(int argc, char** argv) {
  Args args(argc, argv);
  Options out;
  out.port = static_cast<int>(args.Number("port", 0));
  out.connections = static_cast<int>(args.Number("connections", 64));
  out.least = static_cast<size_t>(args.Number("least", 64));
  out.hold = static_cast<int>(args.Number("hold", 0));
  out.seconds = args.Number("seconds", 2);
  out.warm = args.Number("warm", 0.5);
  out.rate = args.Number("rate", 0);
  std::istringstream pids(args.Text("pids", ""));
  for (std::string pid; std::getline(pids, pid, ',');) out.pids.push_back(std::stoi(pid));
  const std::string path = args.Text("path", "/v1/chat/completions");
  out.requests = Requests(args.Text("bodies", ""), path, args.Text("header", ""));
  args.Done();
  if (out.port == 0 || out.requests.empty()) {
    std::fprintf(stderr, "http_load: --port and a --bodies file that holds some are needed\n");
    std::exit(2);
  }
  return out;
}

}  // namespace
}  // namespace llmd::perf

int main(int argc, char** argv) {
  using namespace llmd::perf;
  std::signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1000UL);  // the default lets a wait of 1 ms last 1.05
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const Options options = Read(argc, argv);
  Load load(options);
  if (options.hold > 0) {
    load.Hold();
    return 0;
  }
  std::vector<double> cpu;
  const double before = CpuSeconds(getpid());
  Figures figures = load.Run(cpu);
  Print(figures, cpu, CpuSeconds(getpid()) - before);
}
