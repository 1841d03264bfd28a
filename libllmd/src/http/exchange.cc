#include "http/exchange.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace llmd::http {
namespace {

constexpr size_t kMaxReserveBytes = 1 << 20;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";
constexpr std::string_view kCrlf = "\r\n";
constexpr std::string_view kNothing;

int StatusOfBodyFailure(const Status& status) {
  switch (status.code()) {
    case StatusCode::kResourceExhausted:
      return 413;
    case StatusCode::kDeadlineExceeded:
      return 408;
    default:
      return 400;
  }
}

}  // namespace

ServerExchange::ServerExchange(std::shared_ptr<Connection> connection, const ServerOptions& options,
                               const std::atomic<bool>& draining, ParsedRequest request,
                               const std::string& peer, boost::asio::io_context& loop)
    : connection_(std::move(connection)),
      options_(options),
      draining_(draining),
      request_(std::move(request)),
      peer_(peer),
      loop_(loop),
      decoder_(request_.framing),
      keep_alive_(request_.keep_alive) {
  body_done_ = request_.framing.kind == Framing::Kind::kNone;
  if (body_done_) connection_->Watch();
  if (request_.framing.length > options_.max_body_bytes) {
    (void)FailBody(ResourceExhausted("the body's declared length is over the limit of " +
                                     std::to_string(options_.max_body_bytes) + " bytes"));
  }
}

Status ServerExchange::FailBody(Status status) {
  keep_alive_ = false;
  body_error_ = std::move(status);
  return body_error_;
}

Status ServerExchange::CountPiece(std::string_view piece) {
  held_bytes_ = piece.size();
  body_bytes_ += piece.size();
  if (body_bytes_ <= options_.max_body_bytes) return OkStatus();
  return FailBody(ResourceExhausted("the body is over the limit of " +
                                    std::to_string(options_.max_body_bytes) + " bytes"));
}

Task<StatusOr<std::string_view>> ServerExchange::ReadBody() {
  connection_->Consume(std::exchange(held_bytes_, 0));
  while (body_error_.ok() && !body_done_) {
    size_t framing = 0;
    std::string_view piece;
    const BodyDecoder::State state = decoder_.Next(connection_->input(), &framing, &piece);
    connection_->Consume(framing);
    switch (state) {
      case BodyDecoder::State::kPiece:
        if (Status over = CountPiece(piece); !over.ok()) co_return over;
        co_return piece;
      case BodyDecoder::State::kEnd:
        body_done_ = true;
        connection_->Watch();
        break;
      case BodyDecoder::State::kBad:
        co_return FailBody(InvalidArgument("malformed chunked body"));
      case BodyDecoder::State::kMore:
        if (Status status = co_await ReadMoreBody(); !status.ok()) co_return status;
        break;
    }
  }
  if (!body_error_.ok()) co_return body_error_;
  co_return std::string_view();
}

Task<Status> ServerExchange::ReadMoreBody() {
  if (request_.expects_continue && !continued_ && connection_->input().empty()) {
    continued_ = true;
    const Status sent =
        co_await WriteParts(kContinue, kNothing, kNothing, Connection::WriteUntil::kPeerEnds);
    if (!sent.ok()) co_return FailBody(sent);
  }
  const Connection::ReadEvent event = co_await connection_->ReadMore(options_.body_timeout);
  if (event == Connection::ReadEvent::kData) co_return OkStatus();
  if (event == Connection::ReadEvent::kTimeout) {
    co_return FailBody(DeadlineExceeded("the body did not arrive in time"));
  }
  co_return FailBody(Cancelled("the client left in the middle of the body"));
}

Task<StatusOr<std::string>> ServerExchange::ReadAll() {
  std::string body;
  if (body_error_.ok()) body.reserve(std::min<uint64_t>(request_.framing.length, kMaxReserveBytes));
  while (true) {
    const StatusOr<std::string_view> piece = co_await ReadBody();
    if (piece.ok() && piece->empty()) co_return body;
    if (piece.ok()) {
      body.append(*piece);
      continue;
    }
    const Status failure = piece.status();
    if (failure.code() != StatusCode::kCancelled && !started()) {
      Response answer = ErrorResponse(StatusOfBodyFailure(failure), failure.message());
      (void)co_await Send(std::move(answer));
    }
    co_return failure;
  }
}

// Before an answer: a body that has arrived is passed over; one that has not ends the connection
// after the answer.
void ServerExchange::SettleBody() {
  connection_->Consume(std::exchange(held_bytes_, 0));
  while (!body_done_ && body_error_.ok()) {
    size_t framing = 0;
    std::string_view piece;
    const BodyDecoder::State state = decoder_.Next(connection_->input(), &framing, &piece);
    connection_->Consume(framing + piece.size());
    if (state == BodyDecoder::State::kPiece) continue;
    body_done_ = state == BodyDecoder::State::kEnd;
    if (!body_done_) break;
  }
  if (!body_done_) keep_alive_ = false;
  connection_->Watch();
}

bool ServerExchange::BodylessAnswer(int status) const {
  return request_.head.method == "HEAD" || status < 200 || status == 204 || status == 304;
}

ResponseFraming ServerExchange::Frame(const ResponseHead& head, Body body, uint64_t length) {
  const auto connection = head.headers.Get("Connection");
  if (draining_.load(std::memory_order_relaxed) ||
      (connection && EqualsIgnoreCase(*connection, "close")) || body == Body::kUntilClose) {
    keep_alive_ = false;
  }
  ResponseFraming framing{body, length};
  if (!keep_alive_) {
    framing.persist = ResponseFraming::Persist::kClose;
  } else if (request_.head.version_minor == 0) {
    framing.persist = ResponseFraming::Persist::kKeepAlive;
  }
  return framing;
}

Task<Status> ServerExchange::WriteParts(std::string_view a, std::string_view b, std::string_view c,
                                        Connection::WriteUntil until) {
  const std::array<std::string_view, 4> parts = {std::string_view(pending_head_), a, b, c};
  const Status status = co_await connection_->Write(parts, options_.write_timeout, until);
  pending_head_.clear();
  if (!status.ok()) keep_alive_ = false;
  co_return status;
}

Task<Status> ServerExchange::Send(Response response) {
  if (phase_ != Phase::kReading) co_return FailedPrecondition("Send after the answer was begun");
  SettleBody();
  phase_ = Phase::kDone;
  const int status = response.head.status;
  const bool no_length = status < 200 || status == 204 || status == 304;
  const ResponseFraming framing =
      Frame(response.head, no_length ? Body::kNone : Body::kLength, response.body.size());
  const std::string head = WriteResponseHead(response.head, framing);
  const std::string_view body = BodylessAnswer(status) ? std::string_view() : response.body;
  // A client that closed its sending side may still read a whole answer.
  co_return co_await WriteParts(head, body, kNothing, Connection::WriteUntil::kDone);
}

Task<Status> ServerExchange::Start(ResponseHead head) {
  if (phase_ != Phase::kReading) co_return FailedPrecondition("Start after the answer was begun");
  SettleBody();
  phase_ = Phase::kStreaming;
  bodyless_ = BodylessAnswer(head.status);
  answer_body_ = request_.head.version_minor == 0 ? Body::kUntilClose : Body::kChunked;
  if (const auto length = head.headers.Get("Content-Length")) {
    const auto [end, error] =
        std::from_chars(length->data(), length->data() + length->size(), answer_left_);
    if (error == std::errc() && end == length->data() + length->size())
      answer_body_ = Body::kLength;
  }
  if (head.status < 200 || head.status == 204 ||
      (head.status == 304 && answer_body_ != Body::kLength)) {
    answer_body_ = Body::kNone;
  }
  pending_head_ = WriteResponseHead(head, Frame(head, answer_body_, answer_left_));
  // A body of a declared length follows at once, so its head can share the packet.
  if (answer_body_ == Body::kLength && answer_left_ > 0 && !bodyless_) co_return OkStatus();
  co_return co_await WriteParts(kNothing, kNothing, kNothing, Connection::WriteUntil::kPeerEnds);
}

Task<Status> ServerExchange::Write(std::string_view bytes) {
  if (phase_ != Phase::kStreaming)
    co_return FailedPrecondition("Write outside of a streamed answer");
  if (client_gone()) co_return Cancelled("the client has left");
  if (bytes.empty() || bodyless_) co_return OkStatus();
  if (answer_body_ == Body::kChunked) {
    char buffer[24];
    co_return co_await WriteParts(ChunkHead(bytes.size(), buffer), bytes, kCrlf,
                                  Connection::WriteUntil::kPeerEnds);
  }
  if (answer_body_ == Body::kLength) {
    if (bytes.size() > answer_left_)
      co_return FailedPrecondition("more bytes than the declared Content-Length");
    answer_left_ -= bytes.size();
  }
  co_return co_await WriteParts(bytes, kNothing, kNothing, Connection::WriteUntil::kPeerEnds);
}

Task<Status> ServerExchange::Finish() {
  if (phase_ != Phase::kStreaming)
    co_return FailedPrecondition("Finish outside of a streamed answer");
  if (answer_body_ == Body::kLength && answer_left_ > 0 && !bodyless_) {
    Abort();
    co_return DataLoss("the answer ended before its declared Content-Length");
  }
  phase_ = Phase::kDone;
  const bool chunked = answer_body_ == Body::kChunked && !bodyless_;
  co_return co_await WriteParts(chunked ? kLastChunk : kNothing, kNothing, kNothing,
                                Connection::WriteUntil::kPeerEnds);
}

void ServerExchange::Abort() {
  if (phase_ == Phase::kDone || phase_ == Phase::kAborted) return;
  phase_ = Phase::kAborted;
  keep_alive_ = false;
  // Without a framing only a reset shows that something is missing; otherwise what was written
  // shall arrive.
  if (answer_body_ == Body::kUntilClose) {
    connection_->Close(/*reset=*/true);
  } else {
    connection_->ShutdownSend();
  }
}

void ServerExchange::OnClientGone(std::function<void()> callback) {
  if (connection_->closed() && callback) return callback();
  connection_->Watch();
  connection_->OnEnd(std::move(callback));
}

Task<void> ServerExchange::Complete() {
  connection_->OnEnd(nullptr);
  if (phase_ == Phase::kReading) {
    Response answer = ErrorResponse(500, "the request was not answered");
    (void)co_await Send(std::move(answer));
  }
  if (phase_ == Phase::kStreaming) Abort();
}

}  // namespace llmd::http
