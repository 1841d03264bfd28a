// Many model servers in one process, as far as a scraper sees them: each port serves a metrics page
// of a real vLLM's size, keeps connections alive and changes its gauges with every page.
//   fake_engines --count 100 --endpoints FILE
// writes an endpoints file for file-discovery and prints "control PORT". The control port answers
//   GET /counters                    {"pages":N,"bytes":N,"least":N,"page_bytes":N,"page_lines":N}
//   GET /set?engine=I&waiting=W      W in 10..99
// `pages` counts pages whose last byte was taken by the kernel; `least` is that of the engine with
// the fewest.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <memory>
#include <vector>

#include "epp/args.h"
#include "epp/vllm_page.h"

namespace llmd::perf {
namespace {

constexpr int kControl = -1;

struct Socket {
  int fd = -1;
  int engine = kControl;
  bool listening = false;
  std::string in;
  std::string gauges;  // of the page under way; the reply of a control call
  size_t sent = 0;     // bytes of the page under way
  bool writing = false;
};

struct Engine {
  size_t pages = 0;
  int running = 10, waiting = 50;
};

class Farm {
 public:
  explicit Farm(int count) : engines_(static_cast<size_t>(count)), epoll_(epoll_create1(0)) {
    page_ = VllmPageWriter().Write();
    const std::string gauges = VllmGauges(10, 10);
    page_bytes_ = page_.before.size() + gauges.size() + page_.after.size();
    const std::string whole = page_.before + gauges + page_.after;
    lines_ = static_cast<size_t>(std::count(whole.begin(), whole.end(), '\n'));
    head_ =
        "HTTP/1.1 200 OK\r\ndate: Fri, 28 Nov 2025 00:00:00 GMT\r\nserver: uvicorn\r\n"
        "content-length: " +
        std::to_string(page_bytes_) +
        "\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\r\n" + page_.before;
    for (int i = kControl; i < count; ++i) ports_.push_back(Listen(i));
  }

  int control_port() const { return ports_.front(); }
  void WriteEndpoints(const std::string& path) const {
    std::ofstream out(path);
    out << "endpoints:\n";
    for (size_t i = 1; i < ports_.size(); ++i) {
      out << "- {name: e" << i - 1 << ", address: 127.0.0.1, port: " << ports_[i] << "}\n";
    }
  }

  void Run() {
    std::vector<epoll_event> events(512);
    while (true) {
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < n; ++i) {
        auto* socket = static_cast<Socket*>(events[static_cast<size_t>(i)].data.ptr);
        if (socket->listening) {
          Accept(*socket);
        } else if (!Serve(*socket)) {
          close(socket->fd);
          delete socket;
        }
      }
    }
  }

 private:
  int Listen(int engine) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::perror("fake_engines: listen");
      std::exit(1);
    }
    Watch(new Socket{.fd = fd, .engine = engine, .listening = true}, EPOLLIN, EPOLL_CTL_ADD);
    return ntohs(address.sin_port);
  }

  void Watch(Socket* socket, uint32_t what, int operation) {
    epoll_event event{};
    event.events = what;
    event.data.ptr = socket;
    epoll_ctl(epoll_, operation, socket->fd, &event);
  }

  void Accept(const Socket& listener) {
    const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK);
    if (fd < 0) return;
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    // The whole page leaves in one call, as it does from a server with ordinary buffers.
    const int buffer = 256 << 10;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    Watch(new Socket{.fd = fd, .engine = listener.engine}, EPOLLIN, EPOLL_CTL_ADD);
  }

  // False when the connection is over.
  bool Serve(Socket& socket) {
    if (socket.writing) return Send(socket);
    char buffer[4096];
    const ssize_t n = read(socket.fd, buffer, sizeof buffer);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    socket.in.append(buffer, static_cast<size_t>(n));
    return Next(socket);
  }

  bool Next(Socket& socket) {
    const size_t end = socket.in.find("\r\n\r\n");
    if (end == std::string::npos) return socket.in.size() < 16'384;
    const std::string request = socket.in.substr(0, socket.in.find("\r\n"));
    socket.in.erase(0, end + 4);
    socket.sent = 0;
    socket.writing = true;
    if (socket.engine == kControl) {
      const std::string body = Control(request);
      socket.gauges =
          "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    } else {
      Engine& engine = engines_[static_cast<size_t>(socket.engine)];
      engine.running = 10 + (engine.running - 9) % 90;
      socket.gauges = VllmGauges(engine.running, engine.waiting);
    }
    return Send(socket);
  }

  bool Send(Socket& socket) {
    const std::string_view parts[3] = {
        socket.engine == kControl ? std::string_view() : std::string_view(head_), socket.gauges,
        socket.engine == kControl ? std::string_view() : std::string_view(page_.after)};
    iovec iov[3];
    int count = 0;
    size_t skip = socket.sent, total = 0;
    for (std::string_view part : parts) {
      total += part.size();
      const size_t gone = std::min(skip, part.size());
      skip -= gone;
      part.remove_prefix(gone);
      if (!part.empty()) iov[count++] = {const_cast<char*>(part.data()), part.size()};
    }
    const ssize_t n = writev(socket.fd, iov, count);
    if (n < 0 && errno != EAGAIN) return false;
    if (n > 0) socket.sent += static_cast<size_t>(n);
    if (socket.sent < total) {
      Watch(&socket, EPOLLOUT, EPOLL_CTL_MOD);
      return true;
    }
    socket.writing = false;
    Watch(&socket, EPOLLIN, EPOLL_CTL_MOD);
    if (socket.engine != kControl) ++engines_[static_cast<size_t>(socket.engine)].pages;
    return socket.in.empty() || Next(socket);
  }

  std::string Control(const std::string& request) {
    size_t engine = 0;
    int waiting = 0;
    if (std::sscanf(request.c_str(), "GET /set?engine=%zu&waiting=%d", &engine, &waiting) == 2 &&
        engine < engines_.size() && waiting >= 10 && waiting <= 99) {
      engines_[engine].waiting = waiting;
    }
    size_t pages = 0, least = engines_.front().pages;
    for (const Engine& e : engines_) {
      pages += e.pages;
      least = std::min(least, e.pages);
    }
    char text[256];
    std::snprintf(
        text, sizeof text,
        "{\"pages\":%zu,\"bytes\":%zu,\"least\":%zu,\"page_bytes\":%zu,\"page_lines\":%zu}\n",
        pages, pages * page_bytes_, least, page_bytes_, lines_);
    return text;
  }

  std::vector<Engine> engines_;
  const int epoll_;
  VllmPage page_;
  std::string head_;
  size_t page_bytes_ = 0, lines_ = 0;
  std::vector<int> ports_;
};

}  // namespace
}  // namespace llmd::perf

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  llmd::perf::Args args(argc, argv);
  const int count = static_cast<int>(args.Number("count", 10));
  const std::string path = args.Text("endpoints", "");
  args.Done();
  llmd::perf::Farm farm(count);
  if (!path.empty()) farm.WriteEndpoints(path);
  std::printf("control %d\n", farm.control_port());
  std::fflush(stdout);
  farm.Run();
}
