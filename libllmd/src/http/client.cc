#include "llmd/http/client.h"

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <vector>

#include "http/client_pool.h"
#include "http/connector.h"
#include "http/parser.h"
#include "http/writer.h"

namespace llmd::http {
namespace asio = boost::asio;

struct Cancellation::Impl : CancelState {};

Cancellation::Cancellation() : impl_(std::make_shared<Impl>()) {}
Cancellation::~Cancellation() = default;
bool Cancellation::cancelled() const {
  return impl_->cancelled;
}

void Cancellation::Cancel() {
  impl_->cancelled = true;
  if (impl_->hook) std::exchange(impl_->hook, nullptr)();
}

namespace {

constexpr int kMaxInformational = 32;

Status CallCancelled() {
  return Cancelled("the call was cancelled");
}

class ClientStream final : public ResponseStream {
 public:
  ClientStream(std::shared_ptr<Connection> connection, std::shared_ptr<ClientPool> pool,
               std::string peer, ParsedResponse response, Duration read_timeout,
               std::shared_ptr<CancelState> cancel)
      : connection_(std::move(connection)),
        pool_(std::move(pool)),
        peer_(std::move(peer)),
        response_(std::move(response)),
        decoder_(response_.framing),
        read_timeout_(read_timeout),
        cancel_(std::move(cancel)) {
    if (cancel_) cancel_->hook = [this] { Cancel(); };
  }
  ~ClientStream() override {
    if (cancel_) cancel_->hook = nullptr;
    // An answer that has arrived whole but was not read to its end need not cost the connection.
    std::string_view piece;
    if (!done_ && !cancelled_ && status_.ok()) (void)Next(&piece);
    if (!done_) connection_->Close();
  }

  const ResponseHead& head() const override { return response_.head; }
  Task<StatusOr<std::string_view>> Read() override;
  Task<StatusOr<std::string>> ReadAll(size_t max_bytes) override;
  void Cancel() override {
    cancelled_ = true;
    if (!done_) connection_->Close();
  }

 private:
  BodyDecoder::State Next(std::string_view* piece);
  void Finish();
  Status Fail(Status status);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<ClientPool> pool_;
  const std::string peer_;
  ParsedResponse response_;
  BodyDecoder decoder_;
  const Duration read_timeout_;
  const std::shared_ptr<CancelState> cancel_;
  size_t held_bytes_ = 0;
  bool done_ = false, cancelled_ = false;
  Status status_;
};

void ClientStream::Finish() {
  done_ = true;
  if (response_.keep_alive) {
    pool_->Put(peer_, connection_);
  } else {
    connection_->Close();
  }
}

Status ClientStream::Fail(Status status) {
  connection_->Close();
  status_ = cancelled_ ? CallCancelled() : std::move(status);
  return status_;
}

BodyDecoder::State ClientStream::Next(std::string_view* piece) {
  connection_->Consume(std::exchange(held_bytes_, 0));
  size_t framing = 0;
  const BodyDecoder::State state = decoder_.Next(connection_->input(), &framing, piece);
  connection_->Consume(framing);
  held_bytes_ = piece->size();
  if (state == BodyDecoder::State::kEnd) Finish();
  return state;
}

Task<StatusOr<std::string_view>> ClientStream::Read() {
  while (true) {
    if (cancelled_) co_return CallCancelled();
    if (!status_.ok()) co_return status_;
    if (done_) co_return std::string_view();
    std::string_view piece;
    const BodyDecoder::State state = Next(&piece);
    if (state == BodyDecoder::State::kPiece) co_return piece;
    if (state == BodyDecoder::State::kBad)
      co_return Fail(Unavailable(peer_ + " sent a malformed chunked body"));
    if (state == BodyDecoder::State::kEnd) continue;
    switch (co_await connection_->ReadMore(read_timeout_)) {
      case Connection::ReadEvent::kData:
        break;
      case Connection::ReadEvent::kEof:
        if (!decoder_.until_close()) co_return Fail(Unavailable(peer_ + " cut its answer short"));
        Finish();
        break;
      case Connection::ReadEvent::kError:
        co_return Fail(Unavailable(peer_ + " reset the connection within its answer"));
      case Connection::ReadEvent::kTimeout:
        co_return Fail(DeadlineExceeded(peer_ + " was silent for longer than the read timeout"));
    }
  }
}

Task<StatusOr<std::string>> ClientStream::ReadAll(size_t max_bytes) {
  std::string body;
  while (true) {
    const StatusOr<std::string_view> piece = co_await Read();
    if (!piece.ok()) co_return piece.status();
    if (piece->empty()) co_return body;
    if (body.size() + piece->size() > max_bytes) {
      co_return Fail(ResourceExhausted("the answer of " + peer_ + " is over the limit of " +
                                       std::to_string(max_bytes) + " bytes"));
    }
    body.append(*piece);
  }
}

// Up to and with the final response head. INVALID answers are UNAVAILABLE: to a caller the peer has
// failed.
Task<Status> ReadHead(Connection& connection, const std::string& peer, bool to_head,
                      Duration timeout, HeadLimits limits, ParsedResponse* response) {
  const TimePoint deadline = SystemClock().Now() + timeout;
  HeadScanner scanner(limits);
  int informational = 0;
  while (true) {
    const std::string_view input = connection.input();
    if (scanner.Feed(input)) {
      const WireError error =
          ParseResponse(input.substr(0, scanner.head_bytes()), to_head, response);
      if (!error.ok())
        co_return Unavailable(peer +
                              " answered with a malformed head: " + std::string(error.message));
      connection.Consume(scanner.head_bytes());
      if (response->head.status >= 200) co_return OkStatus();
      if (response->head.status == 101 || ++informational > kMaxInformational) {
        co_return Unavailable(peer + " answered with an unexpected status " +
                              std::to_string(response->head.status));
      }
      scanner = HeadScanner(limits);
      continue;
    }
    if (!scanner.error().ok()) {
      co_return Unavailable(peer +
                            " did not answer with HTTP: " + std::string(scanner.error().message));
    }
    const Duration left = std::max<Duration>(deadline - SystemClock().Now(), Duration(1));
    const Connection::ReadEvent event = co_await connection.ReadMore(left);
    if (event == Connection::ReadEvent::kTimeout) {
      co_return DeadlineExceeded(peer + " did not answer within the first-byte timeout");
    }
    if (event == Connection::ReadEvent::kData) continue;
    co_return Unavailable(
        peer + (input.empty() ? ": reset before the response" : ": cut in the response head"));
  }
}

}  // namespace

struct Client::Impl {
  Runtime& runtime;
  const ClientOptions options;
  std::vector<std::pair<asio::io_context*, std::shared_ptr<ClientPool>>> pools;

  std::shared_ptr<ClientPool> PoolOf(const asio::any_io_executor& executor) const {
    const auto* on_loop = executor.target<asio::io_context::executor_type>();
    for (const auto& [loop, pool] : pools) {
      if (on_loop && &on_loop->context() == loop) return pool;
    }
    return nullptr;
  }
  Task<Status> Exchange(Connection& connection, const std::string& peer, const RequestHead& head,
                        std::string_view body, Duration timeout, ParsedResponse* response) const;
};

Task<Status> Client::Impl::Exchange(Connection& connection, const std::string& peer,
                                    const RequestHead& head, std::string_view body,
                                    Duration timeout, ParsedResponse* response) const {
  const std::string wire = WriteRequestHead(head, peer, body.size());
  const std::array<std::string_view, 2> parts = {wire, body};
  const Status sent =
      co_await connection.Write(parts, timeout, Connection::WriteUntil::kPeerSpeaks);
  if (sent.code() == StatusCode::kDeadlineExceeded) co_return sent;
  // A peer may refuse a request it has not read to the end: its answer counts, the connection does
  // not.
  HeadLimits limits;
  limits.max_bytes = options.max_head_bytes;
  const Status status =
      co_await ReadHead(connection, peer, head.method == "HEAD", timeout, limits, response);
  if (!sent.ok()) response->keep_alive = false;
  co_return status;
}

Client::Client(Runtime& runtime, ClientOptions options)
    : impl_(new Impl{runtime, std::move(options), {}}) {
  for (int i = 0; i < runtime.threads(); ++i) {
    auto pool =
        std::make_shared<ClientPool>(impl_->options.max_idle_per_host, impl_->options.idle_timeout);
    impl_->pools.emplace_back(&runtime.loop(i), std::move(pool));
  }
}

Client::~Client() {
  for (auto& [loop, pool] : impl_->pools) {
    asio::post(*loop, [pool = std::move(pool)] { pool->CloseAll(); });
  }
}

Task<StatusOr<std::unique_ptr<ResponseStream>>> Client::Call(HostPort peer, RequestHead head,
                                                             std::string_view body,
                                                             CallOptions options,
                                                             Cancellation* cancel) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const std::shared_ptr<ClientPool> pool = impl_->PoolOf(executor);
  if (!pool)
    co_return FailedPrecondition(
        "Call from a coroutine that is on no loop of the client's runtime");
  const std::shared_ptr<CancelState> state = cancel ? cancel->impl_ : nullptr;
  const std::string name = peer.ToString();
  for (bool may_reuse = true;; may_reuse = false) {
    if (state && state->cancelled) co_return CallCancelled();
    std::shared_ptr<Connection> connection = may_reuse ? pool->Take(name) : nullptr;
    const bool reused = connection != nullptr;
    if (!reused) {
      const size_t max_buffer = impl_->options.max_head_bytes + 1024;
      auto fresh = co_await Connect(peer, impl_->options.connect_timeout, max_buffer,
                                    impl_->options.tls, state);
      if (!fresh.ok()) co_return fresh.status();
      connection = std::move(*fresh);
    }
    const uint64_t received = connection->bytes_received();
    if (state) state->hook = [connection] { connection->Close(); };
    ParsedResponse response;
    const Status status = co_await impl_->Exchange(*connection, name, head, body,
                                                   options.first_byte_timeout, &response);
    if (state) state->hook = nullptr;
    if (status.ok()) {
      co_return std::unique_ptr<ResponseStream>(new ClientStream(
          std::move(connection), pool, name, std::move(response), options.read_timeout, state));
    }
    const bool silent = connection->bytes_received() == received;
    connection->Close();
    if (state && state->cancelled) co_return CallCancelled();
    // Closed while idle, as keep-alive peers do: the request never had an answer to lose.
    if (!reused || !silent || status.code() != StatusCode::kUnavailable) co_return status;
  }
}

Task<StatusOr<Response>> Client::Fetch(HostPort peer, RequestHead head, std::string body,
                                       CallOptions options, size_t max_bytes) {
  auto stream = co_await Call(std::move(peer), std::move(head), body, options);
  if (!stream.ok()) co_return stream.status();
  StatusOr<std::string> answer = co_await (*stream)->ReadAll(max_bytes);
  if (!answer.ok()) co_return answer.status();
  co_return Response{(*stream)->head(), std::move(*answer)};
}

StatusOr<Response> Client::FetchBlocking(HostPort peer, RequestHead head, std::string body,
                                         CallOptions options) {
  StatusOr<Response> result = Internal("the fetch did not run");
  impl_->runtime.BlockOn([](Client& client, HostPort p, RequestHead h, std::string b, CallOptions o,
                            StatusOr<Response>& out) -> Task<void> {
    out = co_await client.Fetch(std::move(p), std::move(h), std::move(b), o);
  }(*this, std::move(peer), std::move(head), std::move(body), options, result));
  return result;
}

}  // namespace llmd::http
