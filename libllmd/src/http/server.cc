#include "llmd/http/server.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <condition_variable>
#include <mutex>
#include <set>
#include <vector>

#include "http/exchange.h"

namespace llmd::http {
namespace asio = boost::asio;
using tcp = asio::ip::tcp;
namespace {

// How long a connection that we end may still send, so that our last answer is not lost to a reset.
constexpr Duration kLingerLimit = std::chrono::seconds(1);
// A cut exchange is told that its client left; a handler that still waits after this is cancelled.
constexpr Duration kCutGrace = std::chrono::milliseconds(500);

struct Counted {
  explicit Counted(std::atomic<size_t>& c) : count(c) { count.fetch_add(1); }
  ~Counted() { count.fetch_sub(1); }
  std::atomic<size_t>& count;
};

}  // namespace

struct Server::Impl : std::enable_shared_from_this<Server::Impl> {
  // A connection and its coroutine, both of one loop.
  struct Session {
    std::shared_ptr<Connection> connection;
    asio::io_context& loop;
    std::string peer;
    asio::cancellation_signal cancel;
    bool idle = true;
  };
  using SessionPtr = std::shared_ptr<Session>;
  struct LoopSessions {
    asio::io_context* loop = nullptr;
    std::set<SessionPtr> sessions;  // of the loop thread
  };

  Impl(Runtime& r, ServerOptions o, Handler h, Logger l, RefusalHook hook)
      : runtime(r),
        options(std::move(o)),
        handler(std::move(h)),
        logger(std::move(l)),
        refused(std::move(hook)),
        acceptor(r.loop(0)) {
    loops.resize(static_cast<size_t>(r.threads()));
    for (size_t i = 0; i < loops.size(); ++i) loops[i].loop = &r.loop(static_cast<int>(i));
  }

  Status Listen();
  void Launch(asio::io_context& loop, Task<void> task, const SessionPtr& session);
  Task<void> Accept();
  void Admit(tcp::socket socket, asio::io_context& loop);
  Task<void> Serve(SessionPtr session);
  Task<bool> ServeOne(Session& session);
  // True with a parsed request; false when the connection is to end.
  Task<bool> ReadHead(Session& session, ParsedRequest* request);
  Task<void> Refuse(Session& session, WireError error);
  Task<void> RunHandler(Session& session, ServerExchange& exchange);
  Task<void> Linger(Connection& connection);
  void ForEachSession(const std::function<void(Session&)>& fn);
  bool WaitForTasks(Duration limit);
  void Stop(Duration drain);

  Runtime& runtime;
  const ServerOptions options;
  const Handler handler;
  const Logger logger;
  const RefusalHook refused;  // may be null
  tcp::acceptor acceptor;     // of loop 0
  uint16_t port = 0;
  std::vector<LoopSessions> loops;
  std::atomic<size_t> open{0}, active{0};
  std::atomic<bool> draining{false}, cutting{false};
  std::mutex mutex;
  std::condition_variable changed;
  size_t tasks = 0;  // coroutines of this server; under mutex
};

Status Server::Impl::Listen() {
  const std::string where = HostPort{options.host, options.port}.ToString();
  boost::system::error_code error;
  const auto address =
      asio::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, error);
  if (error)
    return InvalidArgument("cannot listen on " + where + ": the host is not an IP address");
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(4096, error);
  if (error == asio::error::address_in_use)
    return AlreadyExists("cannot listen on " + where + ": the port is in use");
  if (error) return ErrnoStatus(error.value(), "cannot listen on " + where);
  port = acceptor.local_endpoint(error).port();
  return OkStatus();
}

// Every coroutine is counted, so that Stop can wait for the last one.
void Server::Impl::Launch(asio::io_context& loop, Task<void> task, const SessionPtr& session) {
  {
    std::lock_guard lock(mutex);
    ++tasks;
  }
  auto ended = [self = shared_from_this(), session](const std::exception_ptr&) {
    if (session) {
      session->connection->Close();
      for (LoopSessions& each : self->loops) {
        if (each.loop == &session->loop) each.sessions.erase(session);
      }
      self->open.fetch_sub(1);
    }
    std::lock_guard lock(self->mutex);
    --self->tasks;
    self->changed.notify_all();
  };
  if (!session) return asio::co_spawn(loop, std::move(task), std::move(ended));
  asio::co_spawn(loop, std::move(task),
                 asio::bind_cancellation_slot(session->cancel.slot(), std::move(ended)));
}

Task<void> Server::Impl::Accept() {
  unsigned next = 0;
  while (!draining.load()) {
    asio::io_context& loop = *loops[next++ % loops.size()].loop;
    auto [error, socket] =
        co_await acceptor.async_accept(loop, asio::as_tuple(asio::use_awaitable));
    if (!error) {
      Admit(std::move(socket), loop);
    } else if (error != asio::error::operation_aborted &&
               error != asio::error::connection_aborted) {
      // Out of descriptors, most likely: they come back as connections end.
      logger.Warn("cannot accept a connection", {{"error", error.message()}});
      (void)co_await SleepFor(std::chrono::milliseconds(50));
    }
  }
}

void Server::Impl::Admit(tcp::socket socket, asio::io_context& loop) {
  if (open.load() >= options.max_connections) {
    static constexpr std::string_view kFull =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    boost::system::error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(kFull), ignored);
    return;
  }
  boost::system::error_code error;
  const tcp::endpoint remote = socket.remote_endpoint(error);
  if (error) return;
  open.fetch_add(1);
  auto connection = std::make_shared<Connection>(std::move(socket), options.max_head_bytes + 1024,
                                                 options.tls ? options.tls() : nullptr);
  std::string peer = HostPort{remote.address().to_string(), remote.port()}.ToString();
  SessionPtr session(new Session{std::move(connection), loop, std::move(peer), {}, true});
  Launch(loop, Serve(session), session);
}

Task<void> Server::Impl::Serve(SessionPtr session) {
  for (LoopSessions& each : loops) {
    if (each.loop == &session->loop) each.sessions.insert(session);
  }
  if (const Status ready = co_await session->connection->Handshake(options.head_timeout);
      !ready.ok()) {
    logger.Log(LogLevel::kVerbose, ready.message(), {{"peer", session->peer}});
    co_return;
  }
  while (!cutting.load() && co_await ServeOne(*session)) {
  }
  co_await Linger(*session->connection);
}

Task<bool> Server::Impl::ServeOne(Session& session) {
  ParsedRequest request;
  session.idle = true;
  if (!co_await ReadHead(session, &request)) co_return false;
  const Counted counted(active);
  ServerExchange exchange(session.connection, options, draining, std::move(request), session.peer,
                          session.loop);
  co_await RunHandler(session, exchange);
  co_return exchange.keep_alive() && !session.connection->closed();
}

Task<void> Server::Impl::RunHandler(Session& session, ServerExchange& exchange) {
  std::string failure;
  try {
    co_await handler(exchange);
  } catch (const std::exception& e) {
    failure = e.what();
  }
  // A session that was cancelled cannot wait any more; it only unwinds.
  if (cutting.load()) co_return exchange.OnClientGone(nullptr);
  if (!failure.empty()) {
    logger.Error("a handler threw",
                 {{"path", std::string(exchange.request().path())}, {"error", failure}});
  }
  co_await exchange.Complete();
}

Task<bool> Server::Impl::ReadHead(Session& session, ParsedRequest* request) {
  Connection& connection = *session.connection;
  const HeadLimits limits{options.max_head_bytes, options.max_headers};
  HeadScanner scanner(limits);
  TimePoint deadline = TimePoint::max();
  while (true) {
    if (deadline == TimePoint::max())
      connection.Consume(HeadScanner::LeadingBlankLines(connection.input()));
    // A lone CR may be the first half of such a blank line.
    if (const std::string_view input = connection.input(); !input.empty() && input != "\r") {
      session.idle = false;
      if (deadline == TimePoint::max()) deadline = SystemClock().Now() + options.head_timeout;
      if (scanner.Feed(input)) break;
      if (!scanner.error().ok()) {
        co_await Refuse(session, scanner.error());
        co_return false;
      }
    }
    if (session.idle && draining.load()) co_return false;
    const Duration left = session.idle
                              ? options.idle_timeout
                              : std::max<Duration>(deadline - SystemClock().Now(), Duration(1));
    const Connection::ReadEvent event = co_await connection.ReadMore(left);
    if (event == Connection::ReadEvent::kData) continue;
    const WireError late{408, "the request head did not arrive in time"};
    if (event == Connection::ReadEvent::kTimeout && !session.idle) co_await Refuse(session, late);
    co_return false;
  }
  const WireError error = ParseRequest(connection.input().substr(0, scanner.head_bytes()), request);
  if (!error.ok()) {
    co_await Refuse(session, error);
    co_return false;
  }
  connection.Consume(scanner.head_bytes());
  co_return true;
}

Task<void> Server::Impl::Refuse(Session& session, WireError error) {
  Response response = ErrorResponse(error.status, error.message);
  if (refused) {
    const std::string id = refused(error.status, error.message, session.peer);
    if (!id.empty()) response.head.headers.Set("x-request-id", id);
  }
  ResponseFraming framing;
  framing.length = response.body.size();
  framing.persist = ResponseFraming::Persist::kClose;
  const std::string head = WriteResponseHead(response.head, framing);
  const std::array<std::string_view, 2> parts = {head, response.body};
  (void)co_await session.connection->Write(parts, kLingerLimit, Connection::WriteUntil::kDone);
}

Task<void> Server::Impl::Linger(Connection& connection) {
  const TimePoint limit = SystemClock().Now() + kLingerLimit;
  connection.ShutdownSend();
  while (!connection.ended() && !connection.closed() && !cutting.load()) {
    connection.Consume(connection.input().size());
    const Duration left = limit - SystemClock().Now();
    if (left <= Duration::zero()) break;
    (void)co_await connection.ReadMore(left);
  }
}

void Server::Impl::ForEachSession(const std::function<void(Session&)>& fn) {
  for (LoopSessions& each : loops) {
    asio::post(*each.loop, [self = shared_from_this(), &each, fn] {
      for (const SessionPtr& session : each.sessions) fn(*session);
    });
  }
}

// Also true when the loops have ended under the server: nothing of it can run any more.
bool Server::Impl::WaitForTasks(Duration limit) {
  std::unique_lock lock(mutex);
  const TimePoint deadline = SystemClock().Now() + limit;
  while (tasks > 0 && !loops[0].loop->stopped()) {
    if (SystemClock().Now() >= deadline) return false;
    changed.wait_for(lock, std::min<Duration>(limit, std::chrono::milliseconds(100)));
  }
  return true;
}

void Server::Impl::Stop(Duration drain) {
  draining.store(true);
  asio::post(*loops[0].loop, [self = shared_from_this()] {
    boost::system::error_code ignored;
    self->acceptor.close(ignored);
  });
  ForEachSession([](Session& session) {
    if (session.idle) session.connection->Close();
  });
  if (WaitForTasks(drain)) return;
  cutting.store(true);
  ForEachSession([](Session& session) { session.connection->Cut(); });
  if (WaitForTasks(kCutGrace)) return;
  ForEachSession([](Session& session) { session.cancel.emit(asio::cancellation_type::terminal); });
  while (!WaitForTasks(std::chrono::seconds(5)))
    logger.Warn("waiting for a handler that does not end");
}

Server::Server() = default;

StatusOr<std::unique_ptr<Server>> Server::Create(Runtime& runtime, ServerOptions options,
                                                 Handler handler, Logger logger,
                                                 RefusalHook refused) {
  std::unique_ptr<Server> server(new Server());
  server->impl_ = std::make_shared<Impl>(runtime, std::move(options), std::move(handler),
                                         std::move(logger), std::move(refused));
  Impl& impl = *server->impl_;
  LLMD_RETURN_IF_ERROR(impl.Listen());
  impl.Launch(runtime.loop(0), impl.Accept(), nullptr);
  return server;
}

Server::~Server() {
  Stop(Duration::zero());
}

uint16_t Server::port() const {
  return impl_->port;
}
size_t Server::open_connections() const {
  return impl_->open.load();
}
size_t Server::active_requests() const {
  return impl_->active.load();
}
void Server::Stop(Duration drain) {
  impl_->Stop(drain);
}

}  // namespace llmd::http
