// The body of a request on its way into the buffer that it is sent from, and what comes behind it.
#include <algorithm>
#include <utility>

#include "http/relay/call_impl.h"
#include "http/relay/client.h"

namespace llmd::relay {
namespace {

constexpr size_t kMaxAheadBytes = 256 * 1024;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace

void Client::StartBody() {
  body_started_ = loop_.now();
  const http::Framing framing = decoder_.framing();
  switch (framing.kind) {
    case http::Framing::Kind::kLength:
      StartLengthBody(framing.length);
      break;
    case http::Framing::Kind::kChunked: {
      const std::string_view rest = in_.view().substr(used_);
      if (!rest.empty() && !Decode(rest, /*from_input=*/true)) return;
      break;
    }
    default:
      Dispatch({});
      return;
  }
  if (state_ != State::kBody) return;
  if (call_->head().expects_continue && body_bytes_ == 0 && !std::exchange(continued_, true)) {
    iovec part{const_cast<char*>(kContinue.data()), kContinue.size()};
    Send(&part, 1);
  }
  ArmBody();
}

void Client::StartLengthBody(uint64_t length) {
  const std::string_view rest = in_.view().substr(used_);
  if (rest.size() >= length) {
    used_ += length;
    Dispatch(rest.substr(0, length));
    return;
  }
  body_bytes_ = rest.size();
  in_place_ = in_.room_bytes() >= length - rest.size();
  if (in_place_) return;
  body_ = loop_.buffers().Take(length);
  body_.Append(loop_.buffers(), rest);
  used_ += rest.size();
  CountBody(rest.size());
}

bool Client::StepBody() {
  return decoder_.framing().kind == http::Framing::Kind::kChunked ? ReadChunkedBody()
                                                                  : ReadLengthBody();
}

bool Client::ReadLengthBody() {
  const uint64_t length = decoder_.framing().length;
  size_t got = 0;
  if (in_place_) {
    if (!Receive(in_.room(), in_.room_bytes(), &got)) return false;
    in_.Added(got);
  } else {
    if (!Receive(body_.room(), length - body_bytes_, &got)) return false;
    body_.Added(got);
    if (!CountBody(got)) return true;
  }
  body_bytes_ += got;
  ArmBody();
  if (body_bytes_ < length) return true;
  if (!in_place_) return Dispatch(body_.view());
  const std::string_view body = in_.view().substr(used_, length);
  used_ += length;
  return Dispatch(body);
}

bool Client::ReadChunkedBody() {
  size_t got = 0;
  if (!Receive(loop_.scratch(), LoopImpl::kScratchBytes, &got)) return false;
  if (Decode({loop_.scratch(), got}, /*from_input=*/false) && state_ == State::kBody) ArmBody();
  return true;
}

// False when the request was refused.
bool Client::Decode(std::string_view input, bool from_input) {
  for (size_t at = 0;;) {
    size_t framing = 0;
    std::string_view piece;
    const http::BodyDecoder::State state = decoder_.Next(input.substr(at), &framing, &piece);
    at += framing + piece.size();
    if (from_input) used_ += framing + piece.size();
    switch (state) {
      case http::BodyDecoder::State::kPiece:
        body_bytes_ += piece.size();
        if (body_bytes_ > loop_.options().server.max_body_bytes) {
          Refuse(413, "the body is over the limit");
          return false;
        }
        body_.Append(loop_.buffers(), piece);
        if (!CountBody(piece.size())) return false;
        break;
      case http::BodyDecoder::State::kBad:
        Refuse(400, "malformed chunked body");
        return false;
      case http::BodyDecoder::State::kMore:
        return true;
      case http::BodyDecoder::State::kEnd:
        if (!from_input) ahead_.Append(loop_.buffers(), input.substr(at));
        Dispatch(body_.view());
        return true;
    }
  }
}

// False when there is no room for it and the request was refused.
bool Client::CountBody(size_t bytes) {
  if (bytes == 0) return true;
  Refusal refusal;
  if (!loop_.policy().OnTake(connection_, Held::kBody, bytes, refusal)) {
    Refuse(refusal);
    return false;
  }
  const size_t limit = loop_.options().max_body_bytes_in_flight;
  counted_bytes_ += bytes;
  const size_t all = loop_.shared().body_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (limit == 0 || all <= limit) return true;
  Refuse(503, "too many request bodies are under way");
  return false;
}

void Client::ForgetBody() {
  body_.Free();
  body_view_ = {};
  if (counted_bytes_ == 0) return;
  loop_.policy().OnGiveBack(connection_, Held::kBody, counted_bytes_);
  loop_.shared().body_bytes.fetch_sub(std::exchange(counted_bytes_, 0), std::memory_order_relaxed);
}

// The gap between two reads, and the rate over all of them, are bounded.
void Client::ArmBody() {
  const RelayOptions& options = loop_.options();
  TimePoint due = loop_.now() + options.server.body_timeout;
  if (options.min_body_bytes_per_s > 0) {
    const auto earned = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(
        static_cast<double>(body_bytes_) / static_cast<double>(options.min_body_bytes_per_s)));
    due = std::min(due, body_started_ + options.body_grace + earned);
  }
  loop_.wheel().Set(timer_, due);
}

// What a client sends while its request is under way is taken up to a bound: its leaving may stand
// behind it.
void Client::ReadAhead() {
  const std::atomic<size_t>& in_flight = loop_.shared().body_bytes;
  const size_t limit = loop_.options().max_body_bytes_in_flight;
  while (readable_ && ahead_.size() < kMaxAheadBytes &&
         (limit == 0 || in_flight.load(std::memory_order_relaxed) <= limit)) {
    ahead_.Reserve(loop_.buffers(), 4096);
    size_t got = 0;
    switch (socket_.Receive(ahead_.room(), ahead_.room_bytes(), &got)) {
      case Io::kDone:
        ahead_.Added(got);
        counted_ahead_ += got;
        loop_.shared().body_bytes.fetch_add(got, std::memory_order_relaxed);
        break;
      case Io::kAgain:
        readable_ = false;
        break;
      case Io::kEnd:
        hung_up_ = true;
        return;
      case Io::kError:
        broken_ = true;
        return;
    }
  }
  if (ahead_.empty()) ahead_.Free();
}

// What was read ahead stands behind what is left of the input.
void Client::TakeAhead() {
  loop_.shared().body_bytes.fetch_sub(std::exchange(counted_ahead_, 0), std::memory_order_relaxed);
  if (!ahead_.has_block()) return;
  if (in_.empty()) {
    in_ = std::move(ahead_);
  } else {
    in_.Append(loop_.buffers(), ahead_.view());
  }
  ahead_.Free();
}

bool Client::Dispatch(std::string_view body) {
  state_ = State::kCall;
  body_view_ = body;
  loop_.wheel().Clear(timer_);
  if (Gone()) {
    OnGone();
    return false;
  }
  call_->Decide();
  return state_ != State::kCall;
}

}  // namespace llmd::relay
