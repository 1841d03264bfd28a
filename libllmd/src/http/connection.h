// One TCP connection on one loop: a bounded input buffer, deadlines, gathered writes, and a watch
// that sees the peer leave while nobody reads. Shared by server and client. All members are for the
// loop thread. Operations under way keep the object alive, so an owner calls Close() and lets go.
#pragma once

#include <boost/asio/async_result.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "http/tls_session.h"
#include "llmd/clock.h"
#include "llmd/http/task.h"
#include "llmd/status.h"

namespace llmd::http {

// Suspends one coroutine until Notify. A Notify without a waiter is forgotten: check the condition
// before waiting.
class Signal {
 public:
  explicit Signal(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}
  Task<void> Wait();
  void Notify();
  bool waiting() const { return handler_.has_value(); }

 private:
  using Handler = boost::asio::async_result<boost::asio::use_awaitable_t<>, void()>::handler_type;
  boost::asio::any_io_executor executor_;
  std::optional<Handler> handler_;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum class ReadEvent { kData, kEof, kError, kTimeout };
  // When a write that has to wait gives up early.
  enum class WriteUntil { kDone, kPeerEnds, kPeerSpeaks };

  // With a TLS context the owner calls Handshake before all else. `host`: whom a client's is to
  // reach.
  Connection(boost::asio::ip::tcp::socket socket, size_t max_buffer_bytes,
             std::shared_ptr<const TlsContext> tls = nullptr, const std::string& host = {});
  ~Connection();

  // Our side of the TLS handshake; OK at once in clear text. DEADLINE_EXCEEDED after
  // `timeout`, UNAVAILABLE with the reason when it failed.
  Task<Status> Handshake(Duration timeout);

  // Bytes that came and were not consumed. The view holds until the next Consume or ReadMore.
  std::string_view input() const { return {buffer_.get() + begin_, end_ - begin_}; }
  void Consume(size_t bytes);
  // Waits until input() grows or the peer ends. `timeout` 0 = no limit.
  Task<ReadEvent> ReadMore(Duration timeout);
  // Keeps one read under way, so that the peer's end is seen; a bounded number of bytes is taken
  // meanwhile. With a timeout, its passing counts as the peer's end.
  void Watch(Duration timeout = Duration::zero());
  // Called once, when the peer's end is seen (EOF, reset) or the watch times out while nobody waits
  // in ReadMore. At once if it has been seen.
  void OnEnd(std::function<void()> callback);
  bool ended() const { return ended_; }
  // The peer closed its sending side only, as far as one can tell: it may still read.
  bool half_closed() const { return ended_ && !broken_ && !closed_; }
  uint64_t bytes_received() const { return received_; }

  // Sends all parts, gathered. CANCELLED when closed or when `until` came true; DEADLINE_EXCEEDED
  // when no byte moved for `stall_timeout`; UNAVAILABLE when the peer reset.
  Task<Status> Write(std::span<const std::string_view> parts, Duration stall_timeout,
                     WriteUntil until);
  // FIN to the peer; reading goes on.
  void ShutdownSend();
  // Ends everything under way. Idempotent. With `reset` the peer gets a RST.
  void Close(bool reset = false);
  // Close as if the peer had left: OnEnd's callback runs first.
  void Cut();
  bool closed() const { return closed_; }

  const boost::asio::any_io_executor& executor() const { return executor_; }
  boost::asio::ip::tcp::socket& socket() { return socket_; }

 private:
  void StartRead(size_t reserve);
  void StartTlsRead(size_t room);
  void OnTlsReady(const boost::system::error_code& error, size_t room);
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void MakeRoom();
  void End(bool broken);
  void Arm();
  void OnTimer();
  void WaitWritable();

  boost::asio::any_io_executor executor_;
  boost::asio::ip::tcp::socket socket_;
  std::unique_ptr<TlsSession> tls_;  // null = clear text
  boost::asio::steady_timer timer_;
  const size_t max_buffer_bytes_;
  std::unique_ptr<char[]> buffer_;
  size_t capacity_ = 0, begin_ = 0, end_ = 0;
  uint64_t received_ = 0;
  Signal read_signal_, write_signal_;
  TimePoint read_deadline_ = TimePoint::max(), write_deadline_ = TimePoint::max(),
            armed_ = TimePoint::max();
  bool grow_ = false, reading_ = false, watching_ = false, ended_ = false, broken_ = false,
       closed_ = false;
  bool read_timed_out_ = false, write_timed_out_ = false, write_wait_ = false;
  std::function<void()> on_end_;
};

}  // namespace llmd::http
