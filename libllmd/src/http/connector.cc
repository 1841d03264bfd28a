#include "http/connector.h"

#include <boost/asio/ip/address.hpp>
#include <boost/asio/this_coro.hpp>
#include <vector>

namespace llmd::http {
namespace asio = boost::asio;
using tcp = asio::ip::tcp;
namespace {

// Shared by the coroutine and the callbacks of what it started, so that neither has to outlive the
// other.
struct Attempt : std::enable_shared_from_this<Attempt> {
  explicit Attempt(const asio::any_io_executor& executor)
      : done(executor), resolver(executor), socket(executor), timer(executor) {}

  Signal done;
  tcp::resolver resolver;
  tcp::socket socket;
  asio::steady_timer timer;
  std::vector<tcp::endpoint> endpoints;
  boost::system::error_code error;
  bool finished = false;
  Status stopped;

  void Finish(const boost::system::error_code& e) {
    error = e;
    finished = true;
    done.Notify();
  }
  void Stop(Status why) {
    if (!stopped.ok()) return;
    stopped = std::move(why);
    boost::system::error_code ignored;
    resolver.cancel();
    socket.close(ignored);
    done.Notify();
  }
  void StartTimer(Duration timeout, const std::string& what) {
    timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(timeout));
    timer.async_wait([self = shared_from_this(), what](const boost::system::error_code& e) {
      if (!e) self->Stop(DeadlineExceeded(what + ": not connected in time"));
    });
  }
  void StartResolve(const HostPort& peer) {
    finished = false;
    resolver.async_resolve(peer.host, std::to_string(peer.port), tcp::resolver::numeric_service,
                           [self = shared_from_this()](const boost::system::error_code& e,
                                                       const tcp::resolver::results_type& results) {
                             for (const auto& entry : results)
                               self->endpoints.push_back(entry.endpoint());
                             self->Finish(e);
                           });
  }
  void StartConnect(const tcp::endpoint& endpoint) {
    finished = false;
    boost::system::error_code ignored;
    socket.close(ignored);
    socket.async_connect(endpoint, [self = shared_from_this()](const boost::system::error_code& e) {
      self->Finish(e);
    });
  }
};

Task<void> Wait(std::shared_ptr<Attempt> attempt) {
  while (!attempt->finished && attempt->stopped.ok()) co_await attempt->done.Wait();
}

// Whatever the way out, no callback or timer is left that would keep the attempt.
struct Cleanup {
  std::shared_ptr<Attempt> attempt;
  std::shared_ptr<CancelState> cancel;
  ~Cleanup() {
    attempt->timer.cancel();
    if (cancel) cancel->hook = nullptr;
  }
};

// A failure of this process or machine, not of the peer.
bool IsOurs(const boost::system::error_code& e) {
  namespace errc = boost::system::errc;
  return e == errc::too_many_files_open || e == errc::too_many_files_open_in_system ||
         e == errc::address_not_available || e == errc::no_buffer_space ||
         e == errc::not_enough_memory;
}

Status Failure(const std::string& what, const boost::system::error_code& e) {
  return {IsOurs(e) ? StatusCode::kResourceExhausted : StatusCode::kUnavailable,
          what + ": " + e.message()};
}

Task<Status> ConnectAny(std::shared_ptr<Attempt> attempt, HostPort peer, std::string what) {
  boost::system::error_code not_literal;
  const asio::ip::address address = asio::ip::make_address(peer.host, not_literal);
  if (not_literal) {
    attempt->StartResolve(peer);
    co_await Wait(attempt);
    if (!attempt->stopped.ok()) co_return attempt->stopped;
    if (attempt->error) co_return Failure(what + ": cannot resolve", attempt->error);
  } else {
    attempt->endpoints.emplace_back(address, peer.port);
  }
  boost::system::error_code last = asio::error::host_not_found;
  for (size_t i = 0; i < attempt->endpoints.size(); ++i) {
    attempt->StartConnect(attempt->endpoints[i]);
    co_await Wait(attempt);
    if (!attempt->stopped.ok()) co_return attempt->stopped;
    if (!attempt->error) co_return OkStatus();
    last = attempt->error;
  }
  co_return Failure(what, last);
}

}  // namespace

Task<StatusOr<std::shared_ptr<Connection>>> Connect(HostPort peer, Duration timeout,
                                                    size_t max_buffer_bytes,
                                                    std::shared_ptr<const TlsContext> tls,
                                                    std::shared_ptr<CancelState> cancel) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  auto attempt = std::make_shared<Attempt>(executor);
  const Cleanup cleanup{attempt, cancel};
  std::string what = "connect " + peer.ToString();
  if (cancel) cancel->hook = [attempt] { attempt->Stop(Cancelled("the call was cancelled")); };
  attempt->StartTimer(timeout, what);
  const std::string host = peer.host;
  const Status status = co_await ConnectAny(attempt, std::move(peer), what);
  if (!status.ok()) co_return status;
  auto connection = std::make_shared<Connection>(std::move(attempt->socket), max_buffer_bytes,
                                                 std::move(tls), host);
  if (cancel) cancel->hook = [connection] { connection->Close(); };
  const Status secured = co_await connection->Handshake(timeout);
  if (secured.ok()) co_return connection;
  connection->Close();
  co_return secured.WithContext(what);
}

}  // namespace llmd::http
