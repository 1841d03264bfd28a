// Model servers of scripts/bench.sh gateway: many ports, one thread, fixed answers, as cheap as a
// server can be, so that what is measured is what stands before them.
//   bench_engines --count 4 --endpoints FILE [--resetting N] [--page full|small]
// writes an endpoints file for file-discovery and prints "ports A B …". POST answers a small JSON
// object, or an event stream when the first bytes of the body say "stream":true:
//   "bench_pace_us":N  between two events (0: one event of each stream in turn, as fast as it goes)
//   "bench_tokens":N   events before [DONE] (32)
//   "bench_hold":true  one event, then one every ten seconds until the client leaves
// Each event carries the time it was sent ("t", nanoseconds of CLOCK_MONOTONIC). The first N ports
// (--resetting) reset every POST but serve their pages.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <queue>
#include <vector>

#include "epp/args.h"
#include "epp/vllm_page.h"

namespace llmd::perf {
namespace {

constexpr size_t kPeek = 256;  // bytes of a body that may hold instructions
constexpr int64_t kHoldNanos = 10'000'000'000;

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Connection {
  uint64_t life = 0;  // tells a reused slot from the one that a timer was set for
  bool open = false, listening = false, resetting = false;
  bool hold = false;
  std::string head, peek;
  bool in_body = false;
  size_t left = 0;     // of the body
  std::string unsent;  // of a page that the socket did not take at once
  int64_t pace = 0;
  int tokens = 0;
};

struct Due {
  int64_t at;
  int fd;
  uint64_t life;
  bool operator<(const Due& other) const { return at > other.at; }
};

int64_t NumberAfter(const std::string& text, const char* key, int64_t otherwise) {
  const size_t at = text.find(key);
  return at == std::string::npos ? otherwise : std::atoll(text.c_str() + at + std::strlen(key));
}

size_t ContentLength(const std::string& head) {
  constexpr char kName[] = "\r\ncontent-length:";
  for (size_t at = 0; (at = head.find("\r\n", at)) != std::string::npos; ++at) {
    if (strncasecmp(head.c_str() + at, kName, sizeof kName - 1) == 0)
      return static_cast<size_t>(std::atoll(head.c_str() + at + sizeof kName - 1));
  }
  return 0;
}

std::string Answer(const char* type, const std::string& body) {
  return "HTTP/1.1 200 OK\r\ndate: Fri, 28 Nov 2025 00:00:00 GMT\r\nserver: uvicorn\r\n"
         "content-length: " +
         std::to_string(body.size()) + "\r\ncontent-type: " + type + "\r\n\r\n" + body;
}

// What a prefill engine says in its answer.
constexpr const char* kLent =
    R"(,"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,)"
    R"("remote_block_ids":[[17]],"remote_engine_id":"0b0f2a3e","remote_host":"127.0.0.1",)"
    R"("remote_port":5557,"remote_request_id":"chatcmpl-0123456789abcdef","tp_size":1,)"
    R"("remote_num_tokens":12})";

class Farm {
 public:
  Farm(int count, int resetting, bool full_page, bool lends) : epoll_(epoll_create1(0)) {
    if (full_page) {
      VllmPage page = VllmPageWriter().Write();
      page_ = page.before + VllmGauges(10, 10) + page.after;
    } else {
      page_ = VllmGauges(10, 10) + "vllm:kv_cache_usage_perc" + kVllmLabels + "} 0.25\n";
    }
    page_ = Answer("text/plain; version=0.0.4; charset=utf-8", page_);
    models_ = Answer("application/json",
                     R"({"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm"}]})");
    small_ = Answer(
        "application/json",
        R"({"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1764288000,)"
        R"("model":"m","choices":[{"index":0,"message":{"role":"assistant","content":)"
        R"("The quick brown fox."},"finish_reason":"stop"}],)"
        R"("usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17})" +
            std::string(lends ? kLent : "") + "}");
    for (int i = 0; i < count; ++i) ports_.push_back(Listen(i < resetting));
  }

  const std::vector<int>& ports() const { return ports_; }
  void WriteEndpoints(const std::string& path) const {
    std::ofstream out(path);
    out << "endpoints:\n";
    for (size_t i = 0; i < ports_.size(); ++i)
      out << "- {name: e" << i << ", address: 127.0.0.1, port: \"" << ports_[i] << "\"}\n";
  }

  void Run() {
    std::vector<epoll_event> events(1024);
    while (true) {
      const int64_t wait = Timeout();
      const timespec time{wait / 1'000'000'000, wait % 1'000'000'000};
      const int n = epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()),
                                 wait < 0 ? nullptr : &time, nullptr);
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        Connection& c = At(fd);
        if (c.listening) {
          Accept(fd, c.resetting);
        } else if (!c.unsent.empty() ? !Flush(fd, c) : !Read(fd, c)) {
          Close(fd, c);
        }
      }
      SendDue();
    }
  }

 private:
  Connection& At(int fd) {
    while (connections_.size() <= static_cast<size_t>(fd))
      connections_.push_back(std::make_unique<Connection>());
    return *connections_[static_cast<size_t>(fd)];
  }

  // Nanoseconds until an event is due; -1: none is.
  int64_t Timeout() const {
    if (!turn_.empty()) return 0;
    return due_.empty() ? -1 : std::max<int64_t>(0, due_.top().at - Now());
  }

  int Listen(bool resetting) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::perror("bench_engines: listen");
      std::exit(1);
    }
    Connection& c = At(fd);
    c.open = c.listening = true;
    c.resetting = resetting;
    Watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    return ntohs(address.sin_port);
  }

  void Watch(int fd, uint32_t what, int operation) {
    epoll_event event{};
    event.events = what;
    event.data.fd = fd;
    epoll_ctl(epoll_, operation, fd, &event);
  }

  void Accept(int listener, bool resetting) {
    while (true) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      if (fd < 0) return;
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      Connection& c = At(fd);
      c = Connection();
      c.life = ++lives_;
      c.open = true;
      c.resetting = resetting;
      Watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
  }

  void Close(int fd, Connection& c) {
    if (!c.open) return;
    c.open = false;
    close(fd);
  }

  // False when the connection is over.
  bool Read(int fd, Connection& c) {
    static char buffer[256 << 10];
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    return Take(fd, c, buffer, static_cast<size_t>(n));
  }

  bool Take(int fd, Connection& c, const char* data, size_t size) {
    while (size > 0) {
      if (!c.in_body) {
        const size_t had = c.head.size();
        c.head.append(data, size);
        const size_t end = c.head.find("\r\n\r\n");
        if (end == std::string::npos) return c.head.size() < 65'536;
        const size_t used = end + 4 - had;
        data += used;
        size -= used;
        c.head.resize(end + 4);
        c.left = ContentLength(c.head);
        c.peek.clear();
        c.in_body = true;
      }
      const size_t take = std::min(size, c.left);
      if (c.peek.size() < kPeek) c.peek.append(data, std::min(take, kPeek - c.peek.size()));
      data += take;
      size -= take;
      c.left -= take;
      if (c.left == 0 && !Reply(fd, c)) return false;
    }
    return true;
  }

  bool Reply(int fd, Connection& c) {
    c.in_body = false;
    const bool get = c.head.starts_with("GET ");
    const bool metrics = get && c.head.starts_with("GET /metrics");
    c.head.clear();
    if (metrics) return Send(fd, c, page_);
    if (get) return Send(fd, c, models_);
    if (c.resetting) {
      const linger hard{1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
      return false;
    }
    if (c.peek.find("\"stream\":true") == std::string::npos) return Send(fd, c, small_);
    return StartStream(fd, c);
  }

  bool StartStream(int fd, Connection& c) {
    c.pace = NumberAfter(c.peek, "\"bench_pace_us\":", 0) * 1000;
    c.tokens = static_cast<int>(NumberAfter(c.peek, "\"bench_tokens\":", 32));
    c.hold = c.peek.find("\"bench_hold\":true") != std::string::npos;
    if (!Send(fd, c,
              "HTTP/1.1 200 OK\r\ndate: Fri, 28 Nov 2025 00:00:00 GMT\r\nserver: uvicorn\r\n"
              "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
              "\r\n"))
      return false;
    Schedule({Now(), fd, c.life}, c);
    return true;
  }

  void Schedule(Due due, const Connection& c) {
    if (c.hold || c.pace > 0) {
      due_.push(due);
    } else {
      turn_.push_back(due);
    }
  }

  void SendDue() {
    std::vector<Due> now_due;
    now_due.swap(turn_);
    const int64_t now = due_.empty() ? 0 : Now();
    while (!due_.empty() && due_.top().at <= now) {
      now_due.push_back(due_.top());
      due_.pop();
    }
    for (const Due& due : now_due) {
      Connection& c = At(due.fd);
      if (c.open && c.life == due.life && !SendEvent(due, c)) Close(due.fd, c);
    }
  }

  bool SendEvent(const Due& due, Connection& c) {
    if (c.tokens == 0) return Send(due.fd, c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    if (!c.hold) --c.tokens;
    char event[512], chunk[600];
    const int n = std::snprintf(
        event, sizeof event,
        "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\","
        "\"created\":1764288000,\"model\":\"m\",\"t\":%lld,\"choices\":[{\"index\":0,"
        "\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        static_cast<long long>(Now()));
    const int size = std::snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", n, event);
    if (send(due.fd, chunk, static_cast<size_t>(size), MSG_NOSIGNAL) != size) return false;
    Schedule({due.at + (c.hold ? kHoldNanos : c.pace), due.fd, due.life}, c);
    return true;
  }

  bool Send(int fd, Connection& c, std::string_view bytes) {
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return false;
    const size_t sent = n < 0 ? 0 : static_cast<size_t>(n);
    if (sent == bytes.size()) return true;
    c.unsent = bytes.substr(sent);
    Watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
    return true;
  }

  bool Flush(int fd, Connection& c) {
    const ssize_t n = send(fd, c.unsent.data(), c.unsent.size(), MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN;
    c.unsent.erase(0, static_cast<size_t>(n));
    if (c.unsent.empty()) Watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    return true;
  }

  const int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;  // by descriptor
  std::priority_queue<Due> due_;                          // paced and held streams
  std::vector<Due> turn_;                                 // streams that go as fast as they can
  uint64_t lives_ = 0;
  std::string page_, models_, small_;
  std::vector<int> ports_;
};

}  // namespace
}  // namespace llmd::perf

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1000UL);  // the default lets a wait of 1 ms last 1.05
  llmd::perf::Args args(argc, argv);
  const int count = static_cast<int>(args.Number("count", 4));
  const int resetting = static_cast<int>(args.Number("resetting", 0));
  const std::string path = args.Text("endpoints", "");
  const bool full = args.Text("page", "full") == "full";
  const bool lends = args.Number("lends", 0) != 0;
  args.Done();
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  llmd::perf::Farm farm(count, resetting, full, lends);
  if (!path.empty()) farm.WriteEndpoints(path);
  std::printf("ports");
  for (const int port : farm.ports()) std::printf(" %d", port);
  std::printf("\n");
  std::fflush(stdout);
  farm.Run();
}
