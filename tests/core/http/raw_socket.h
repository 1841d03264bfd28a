// Blocking sockets for tests that need the bytes themselves: a client end and a scripted listening
// end on 127.0.0.1. Every wait ends after 10 s, which a test sees as missing bytes.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace llmd::http::testing {

class RawSocket {
 public:
  explicit RawSocket(int fd) : fd_(fd) {
    timeval limit{10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  RawSocket(RawSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  RawSocket& operator=(RawSocket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~RawSocket() { Close(); }

  static RawSocket Connect(uint16_t port, int receive_buffer_bytes = 0) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer_bytes > 0) {
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd);
      return RawSocket(-1);
    }
    return RawSocket(fd);
  }

  bool connected() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // More bytes into `seen`; false at the end, on a reset or after the limit.
  bool Receive(std::string* seen) {
    char buffer[65536];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    reset_ |= n < 0 && errno == ECONNRESET;
    eof_ |= n == 0;
    if (n <= 0) return false;
    seen->append(buffer, static_cast<size_t>(n));
    return true;
  }
  // Everything up to the peer's end.
  std::string ReadToEnd() {
    std::string seen;
    while (Receive(&seen)) {
    }
    return seen;
  }
  // Everything until `text` has been seen `times` times.
  std::string ReadUntil(std::string_view text, int times = 1) {
    std::string seen;
    while (Count(seen, text) < times && Receive(&seen)) {
    }
    return seen;
  }
  static int Count(std::string_view in, std::string_view text) {
    int n = 0;
    for (size_t at = in.find(text); at != std::string_view::npos;
         at = in.find(text, at + text.size()))
      ++n;
    return n;
  }
  bool eof() const { return eof_; }
  bool reset() const { return reset_; }
  void ShutdownSend() { ::shutdown(fd_, SHUT_WR); }
  void Close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void Reset() {
    linger hard{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    Close();
  }

 private:
  int fd_;
  bool eof_ = false, reset_ = false;
};

// A peer that does what a script says with each connection in turn, on a thread of its own.
class ScriptedPeer {
 public:
  // `script(socket, n)` is called for the n-th connection, until `connections` were served.
  ScriptedPeer(int connections, std::function<void(RawSocket&, int)> script) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener_, 16);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, connections, script = std::move(script)] {
      for (int i = 0; i < connections; ++i) {
        const int fd = ::accept(listener_, nullptr, nullptr);
        if (fd < 0) return;
        RawSocket socket(fd);
        script(socket, i);
      }
    });
  }
  ~ScriptedPeer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  uint16_t port() const { return port_; }

 private:
  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace llmd::http::testing
