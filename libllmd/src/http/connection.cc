#include "http/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>

namespace llmd::http {
namespace {

constexpr size_t kFirstBufferBytes = 4096;
// Room kept back from ordinary reads, so that a watch has space to read into and can see the end
// behind it.
constexpr size_t kWatchReserveBytes = 256;
constexpr size_t kMaxParts = 8;

// What is left of the parts after `sent` bytes.
struct Gather {
  iovec parts[kMaxParts];
  size_t count = 0, at = 0;

  explicit Gather(std::span<const std::string_view> views) {
    LLMD_CHECK(views.size() <= kMaxParts);
    for (std::string_view v : views) {
      if (!v.empty()) parts[count++] = {const_cast<char*>(v.data()), v.size()};
    }
  }
  bool done() const { return at == count; }
  void Advance(size_t sent) {
    while (sent > 0 && sent >= parts[at].iov_len) sent -= parts[at++].iov_len;
    if (sent == 0) return;
    parts[at].iov_base = static_cast<char*>(parts[at].iov_base) + sent;
    parts[at].iov_len -= sent;
  }
  std::string_view front() const {
    return {static_cast<const char*>(parts[at].iov_base), parts[at].iov_len};
  }
  ssize_t Send(int fd) {
    msghdr message{};
    message.msg_iov = parts + at;
    message.msg_iovlen = count - at;
    return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
};

}  // namespace

Task<void> Signal::Wait() {
  LLMD_CHECK(!handler_.has_value());
  return boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void()>(
      [this](auto handler) {
        if (auto slot = boost::asio::get_associated_cancellation_slot(handler);
            slot.is_connected()) {
          slot.assign([this](boost::asio::cancellation_type) { Notify(); });
        }
        handler_.emplace(std::move(handler));
      },
      boost::asio::use_awaitable);
}

void Signal::Notify() {
  if (!handler_) return;
  Handler handler = std::move(*handler_);
  handler_.reset();
  boost::asio::post(executor_, std::move(handler));
}

Connection::Connection(boost::asio::ip::tcp::socket socket, size_t max_buffer_bytes,
                       std::shared_ptr<const TlsContext> tls, const std::string& host)
    : executor_(socket.get_executor()),
      socket_(std::move(socket)),
      timer_(executor_),
      max_buffer_bytes_(max_buffer_bytes + kWatchReserveBytes),
      read_signal_(executor_),
      write_signal_(executor_) {
  boost::system::error_code ignored;
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  if (tls) tls_ = std::make_unique<TlsSession>(std::move(tls), socket_.native_handle(), host);
}

Connection::~Connection() = default;

void Connection::Consume(size_t bytes) {
  begin_ += std::min(bytes, end_ - begin_);
}

void Connection::MakeRoom() {
  if (begin_ == end_) begin_ = end_ = 0;
  if (buffer_ && capacity_ - end_ > kWatchReserveBytes && begin_ == 0 && !grow_) return;
  const size_t unread = end_ - begin_;
  size_t wanted = std::max(capacity_, kFirstBufferBytes);
  if (grow_ || wanted < unread + 2 * kWatchReserveBytes) wanted *= 2;
  grow_ = false;
  wanted = std::min(wanted, std::max(max_buffer_bytes_, kFirstBufferBytes));
  if (wanted <= capacity_) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, unread);
  } else {
    std::unique_ptr<char[]> larger(new char[wanted]);
    if (unread > 0) std::memcpy(larger.get(), buffer_.get() + begin_, unread);
    buffer_ = std::move(larger);
    capacity_ = wanted;
  }
  begin_ = 0;
  end_ = unread;
}

void Connection::StartRead(size_t reserve) {
  if (capacity_ - end_ <= reserve) return;
  reading_ = true;
  const size_t room = capacity_ - end_ - reserve;
  if (tls_) return StartTlsRead(room);
  socket_.async_read_some(
      boost::asio::buffer(buffer_.get() + end_, room),
      [self = shared_from_this(), room](const boost::system::error_code& error, size_t bytes) {
        self->grow_ |= bytes == room;
        self->OnRead(error, bytes);
      });
}

// What the session holds decrypted already makes no descriptor readable.
void Connection::StartTlsRead(size_t room) {
  auto ready = [self = shared_from_this(), room](const boost::system::error_code& error = {}) {
    self->OnTlsReady(error, room);
  };
  if (tls_->pending()) return boost::asio::post(executor_, std::move(ready));
  socket_.async_wait(boost::asio::ip::tcp::socket::wait_read, std::move(ready));
}

void Connection::OnTlsReady(const boost::system::error_code& error, size_t room) {
  if (closed_ || error) return OnRead(error, 0);
  size_t bytes = 0;
  switch (tls_->Read(buffer_.get() + end_, room, &bytes)) {
    case TlsSession::Step::kDone:
      grow_ |= bytes == room;
      return OnRead({}, bytes);
    case TlsSession::Step::kWantRead:
    case TlsSession::Step::kWantWrite:
      return StartTlsRead(room);
    case TlsSession::Step::kEnd:
      return OnRead(boost::asio::error::eof, 0);
    case TlsSession::Step::kFailed:
      return OnRead(boost::asio::error::connection_reset, 0);
  }
}

Task<Status> Connection::Handshake(Duration timeout) {
  if (!tls_) co_return OkStatus();
  read_timed_out_ = false;
  read_deadline_ = SystemClock().Now() + timeout;
  Arm();
  while (true) {
    const TlsSession::Step step = tls_->Handshake();
    if (step == TlsSession::Step::kDone) break;
    if (step == TlsSession::Step::kEnd || step == TlsSession::Step::kFailed)
      co_return Unavailable("TLS handshake: " + tls_->failure());
    socket_.async_wait(step == TlsSession::Step::kWantRead
                           ? boost::asio::ip::tcp::socket::wait_read
                           : boost::asio::ip::tcp::socket::wait_write,
                       [self = shared_from_this()](const boost::system::error_code&) {
                         self->read_signal_.Notify();
                       });
    co_await read_signal_.Wait();
    if (closed_) co_return Cancelled("the connection was closed");
    if (read_timed_out_) co_return DeadlineExceeded("TLS handshake: the peer takes too long");
  }
  read_deadline_ = TimePoint::max();
  co_return OkStatus();
}

void Connection::OnRead(const boost::system::error_code& error, size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (error) return End(error != boost::asio::error::eof);
  end_ += bytes;
  received_ += bytes;
  if (!read_signal_.waiting() && watching_) StartRead(0);
  read_signal_.Notify();
  write_signal_.Notify();
}

void Connection::End(bool broken) {
  if (ended_) return;
  ended_ = true;
  broken_ = broken;
  read_signal_.Notify();
  write_signal_.Notify();
  if (on_end_) std::exchange(on_end_, nullptr)();
}

void Connection::OnEnd(std::function<void()> callback) {
  if (ended_ && callback) return callback();
  on_end_ = std::move(callback);
}

Task<Connection::ReadEvent> Connection::ReadMore(Duration timeout) {
  const uint64_t before = received_;
  watching_ = read_timed_out_ = false;
  if (!reading_ && !ended_ && !closed_) {
    MakeRoom();
    StartRead(kWatchReserveBytes);
    // No room at all: the owner let the buffer fill up to its bound.
    if (!reading_) co_return ReadEvent::kError;
  }
  if (timeout > Duration::zero()) {
    read_deadline_ = SystemClock().Now() + timeout;
    Arm();
  }
  while (received_ == before && !ended_ && !closed_ && !read_timed_out_)
    co_await read_signal_.Wait();
  read_deadline_ = TimePoint::max();
  if (received_ != before) co_return ReadEvent::kData;
  if (closed_ || broken_) co_return ReadEvent::kError;
  co_return ended_ ? ReadEvent::kEof : ReadEvent::kTimeout;
}

void Connection::Watch(Duration timeout) {
  if (closed_ || ended_) return;
  watching_ = true;
  if (!buffer_) MakeRoom();
  if (!reading_) StartRead(0);
  read_deadline_ = TimePoint::max();
  if (timeout <= Duration::zero()) return;
  read_deadline_ = SystemClock().Now() + timeout;
  Arm();
}

// One timer serves both deadlines and is only moved forward in time when it fires, so that a busy
// connection does not touch the timer queue for every message.
void Connection::Arm() {
  const TimePoint next = std::min(read_deadline_, write_deadline_);
  if (next >= armed_ || closed_) return;
  armed_ = next;
  timer_.expires_at(std::chrono::time_point_cast<boost::asio::steady_timer::duration>(next));
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->OnTimer();
  });
}

void Connection::OnTimer() {
  armed_ = TimePoint::max();
  if (closed_) return;
  const TimePoint now = SystemClock().Now();
  if (write_deadline_ <= now) {
    write_deadline_ = TimePoint::max();
    write_timed_out_ = true;
    write_signal_.Notify();
  }
  if (read_deadline_ <= now) {
    read_deadline_ = TimePoint::max();
    read_timed_out_ = true;
    if (!read_signal_.waiting()) return End(true);
    read_signal_.Notify();
  }
  Arm();
}

void Connection::WaitWritable() {
  if (write_wait_) return;
  write_wait_ = true;
  socket_.async_wait(boost::asio::ip::tcp::socket::wait_write,
                     [self = shared_from_this()](const boost::system::error_code&) {
                       self->write_wait_ = false;
                       self->write_signal_.Notify();
                     });
}

Task<Status> Connection::Write(std::span<const std::string_view> parts, Duration stall_timeout,
                               WriteUntil until) {
  Gather gather(parts);
  write_timed_out_ = false;
  const uint64_t received = received_;
  while (!gather.done()) {
    if (closed_) co_return Cancelled("the connection was closed");
    if (ended_ && (broken_ || until != WriteUntil::kDone)) co_return Cancelled("the peer has left");
    if (until == WriteUntil::kPeerSpeaks && received_ != received)
      co_return Cancelled("the peer answered early");
    const ssize_t sent = tls_ ? tls_->Write(gather.front()) : gather.Send(socket_.native_handle());
    if (sent >= 0) {
      gather.Advance(static_cast<size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) co_return ErrnoStatus(errno, "write");
    WaitWritable();
    write_deadline_ = SystemClock().Now() + stall_timeout;
    Arm();
    co_await write_signal_.Wait();
    write_deadline_ = TimePoint::max();
    if (write_timed_out_)
      co_return DeadlineExceeded("the peer took no byte within the write timeout");
  }
  co_return OkStatus();
}

void Connection::ShutdownSend() {
  boost::system::error_code ignored;
  if (!closed_ && tls_) tls_->Shutdown();
  if (!closed_) socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
}

void Connection::Cut() {
  End(true);
  Close();
}

void Connection::Close(bool reset) {
  if (closed_) return;
  closed_ = true;
  watching_ = false;
  on_end_ = nullptr;
  boost::system::error_code ignored;
  if (reset) socket_.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  socket_.close(ignored);
  timer_.cancel();
  read_signal_.Notify();
  write_signal_.Notify();
}

}  // namespace llmd::http
