#include "http/relay/client.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "http/relay/call_impl.h"

namespace llmd::relay {
namespace {

constexpr size_t kFirstReadBytes = 16 * 1024;
// Then others have their turn.
constexpr int kStepsPerTurn = 16;
constexpr size_t kBytesPerTurn = 256 * 1024;
// How long a connection that we end may still send, so that our last answer is not lost to a reset.
constexpr Duration kLingerLimit = std::chrono::seconds(1);

}  // namespace

Client::Client(LoopImpl& loop)
    : loop_(loop),
      timer_([](void* self) { static_cast<Client*>(self)->OnTimer(); }, this),
      scanner_({}) {}

void Client::Begin(int fd, bool full) {
  socket_ = Socket(fd);
  peer_ = PeerOf(fd);
  subject_.clear();
  connection_ = {.peer = peer_};
  readable_ = hung_up_ = broken_ = false;
  state_ = State::kIdle;
  const http::ServerOptions& server = loop_.options().server;
  scanner_ = http::HeadScanner({server.max_head_bytes, server.max_headers});
  if (server.tls) {
    socket_.UseTls(server.tls(), {}, loop_.warm());
    state_ = State::kHandshake;
  }
  if (peer_.empty() || !loop_.Watch(fd, *this)) return Close();
  Refusal refusal{503, "too many connections", "overloaded", 1};
  if (full) return RefuseConnection(refusal);
  introduced_ = true;
  if (!loop_.policy().OnConnect(connection_, refusal)) return RefuseConnection(refusal);
  ArmForState();
}

// There is no room: told at once, whatever its request would be.
void Client::RefuseConnection(const Refusal& refusal) {
  if (socket_.tls()) return Close();
  StartCall(loop_.now());
  Refuse(refusal);
  Drive();
}

void Client::StartCall(TimePoint received) {
  UncountHead();
  call_ = &loop_.TakeCall();
  call_->Begin(this, received);
  state_ = State::kBody;
  used_ = 0;
  body_view_ = {};
  body_bytes_ = 0;
  continued_ = in_place_ = false;
  decoder_ = http::BodyDecoder();
}

void Client::OnEvents(uint32_t events) {
  if (events == 0) again_ = false;
  if (state_ == State::kClosed) return;
  broken_ |= (events & (EPOLLERR | EPOLLHUP)) != 0;
  hung_up_ |= (events & EPOLLRDHUP) != 0;
  readable_ |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0;
  if ((events & EPOLLOUT) != 0 && behind()) Flush();
  if (state_ == State::kCall && readable_) ReadAhead();
  if (state_ == State::kCall && Gone()) return OnGone();
  if (state_ == State::kFlush && broken_) return OnGone();
  Drive();
}

bool Client::Gone() const {
  return broken_ || (hung_up_ && !loop_.options().allow_half_close);
}

// One step after the other, so that a request that is answered at once, and the next one behind it,
// do not stand on each other's stack.
void Client::Drive() {
  if (driving_) return;
  driving_ = true;
  taken_ = 0;
  int steps = 0;
  bool more = true;
  while (more && steps++ < kStepsPerTurn && taken_ < kBytesPerTurn) more = Step();
  driving_ = false;
  if (more && !std::exchange(again_, true)) loop_.Again(*this);
  if (state_ == State::kClosed) return;
  if (in_.empty() && call_ == nullptr) in_.Free();
  ArmForState();
}

bool Client::Step() {
  switch (state_) {
    case State::kHandshake:
      return StepHandshake();
    case State::kIdle:
    case State::kHead:
      return StepHead();
    case State::kBody:
      return StepBody();
    case State::kFlush:
      return StepFlush();
    case State::kLinger:
      return StepLinger();
    case State::kCall:
    case State::kClosed:
      break;
  }
  return false;
}

bool Client::StepHandshake() {
  switch (socket_.Handshake()) {
    case Io::kDone:
      LoopImpl::Bump(loop_.counters.handshakes);
      subject_ = socket_.PeerSubject();
      state_ = State::kIdle;
      readable_ = true;  // the session may hold the first request already
      return true;
    case Io::kAgain:
      return false;
    default:
      return HandshakeFailed();
  }
}

// Whoever speaks HTTP in clear text is told so; the others have their alert.
bool Client::HandshakeFailed() {
  LoopImpl::Bump(loop_.counters.handshake_failures);
  const bool clear = socket_.spoke_clear();
  loop_.shared().logger.Log(LogLevel::kVerbose, "TLS handshake failed",
                            {{"peer", peer_}, {"error", socket_.TlsFailure()}});
  socket_.DropTls();
  readable_ = true;
  if (clear) {
    StartCall(loop_.now());
    Refuse(400, "this port speaks TLS: use https");
  } else {
    Linger();
  }
  return true;
}

// True with more bytes; false when there are none yet, or the connection is over.
bool Client::Receive(char* to, size_t room, size_t* got) {
  if (!readable_) return false;
  switch (socket_.Receive(to, room, got)) {
    case Io::kDone:
      taken_ += *got;
      if (*got < room && socket_.short_read_is_all() && !hung_up_) readable_ = false;
      return true;
    case Io::kAgain:
      readable_ = false;
      return false;
    default:
      OnGone();
      return false;
  }
}

bool Client::StepHead() {
  if (state_ == State::kIdle) in_.Consume(http::HeadScanner::LeadingBlankLines(in_.view()));
  // A lone CR may be the first half of such a blank line.
  if (const std::string_view input = in_.view(); !input.empty() && input != "\r") {
    if (state_ == State::kIdle) {
      state_ = State::kHead;
      head_started_ = loop_.now();
    }
    if (scanner_.Feed(input) || !scanner_.error().ok()) return BeginCall();
    if (!CountHead()) return true;
  }
  if (state_ == State::kIdle && loop_.shared().draining.load(std::memory_order_relaxed)) {
    Close();
    return false;
  }
  if (!readable_) return false;
  in_.Reserve(loop_.buffers(), in_.has_block() ? 1 : kFirstReadBytes);
  size_t got = 0;
  if (!Receive(in_.room(), in_.room_bytes(), &got)) return false;
  in_.Added(got);
  return true;
}

bool Client::BeginCall() {
  StartCall(head_started_);
  used_ = scanner_.head_bytes();
  http::WireError error = scanner_.error();
  if (error.ok()) error = http::ReadRequestHead(in_.view().substr(0, used_), &call_->head());
  if (!error.ok()) call_->head().Clear();
  decoder_ = http::BodyDecoder(call_->head().framing);
  if (!error.ok()) {
    Refuse(error.status, error.message);
    return true;
  }
  if (call_->head().framing.length > loop_.options().server.max_body_bytes) {
    Refuse(413, "the body's declared length is over the limit");
    return true;
  }
  loop_.policy().OnHead(*call_);
  if (state_ == State::kBody) StartBody();
  return true;
}

void Client::Refuse(const Refusal& refusal) {
  call_->SetRefused();
  loop_.policy().OnRefused(*call_, refusal);
  if (state_ != State::kBody) return;
  loop_.policy().Policy::OnRefused(*call_, refusal);
}

// Of a head that has only begun. False when the client may not hold more and was refused.
bool Client::CountHead() {
  const size_t more = in_.size() - counted_head_;
  if (more == 0) return true;
  Refusal refusal;
  if (loop_.policy().OnTake(connection_, Held::kHead, more, refusal)) {
    counted_head_ += more;
    return true;
  }
  StartCall(head_started_);
  Refuse(refusal);
  return false;
}

void Client::UncountHead() {
  if (counted_head_ == 0) return;
  loop_.policy().OnGiveBack(connection_, Held::kHead, std::exchange(counted_head_, 0));
}

void Client::OnTimer() {
  switch (state_) {
    case State::kHead:
      StartCall(head_started_);
      Refuse(408, "the request head did not arrive in time");
      return Drive();
    case State::kBody:
      Refuse(408, "the body did not arrive in time");
      return Drive();
    case State::kCall:
    case State::kFlush:
      return OnGone();  // it takes no bytes
    default:
      return Close();
  }
}

void Client::ArmForState() {
  const http::ServerOptions& server = loop_.options().server;
  TimerWheel& wheel = loop_.wheel();
  switch (state_) {
    case State::kHandshake:
      if (!timer_.set()) wheel.Set(timer_, loop_.now() + server.head_timeout);
      return;
    case State::kIdle:
      return wheel.Set(timer_, loop_.now() + server.idle_timeout);
    case State::kHead:
      return wheel.Set(timer_, head_started_ + server.head_timeout);
    case State::kBody:
      return;  // by ArmBody
    case State::kCall:
    case State::kFlush:
      if (!behind()) return wheel.Clear(timer_);
      return wheel.Set(timer_, last_write_ + server.write_timeout);
    case State::kLinger:
    case State::kClosed:
      return;
  }
}

void Client::Send(iovec* parts, size_t count) {
  if (broken_ || state_ == State::kClosed) return;
  size_t sent = 0;
  if (!behind()) {
    last_write_ = loop_.now();
    size_t total = 0;
    for (size_t i = 0; i < count; ++i) total += parts[i].iov_len;
    std::vector<iovec>& rest = loop_.iovec_scratch();
    rest.assign(parts, parts + count);
    const Io io = socket_.Send(rest.data(), count, loop_.record(), &sent);
    if (io == Io::kError) {
      broken_ = true;
      if (call_ != nullptr) loop_.Defer(*call_, [](CallImpl& call) { call.ClientBroke(); });
      return;
    }
    if (sent == total) return;
  }
  for (size_t i = 0; i < count; ++i) {
    const size_t skip = std::min(sent, parts[i].iov_len);
    sent -= skip;
    out_.Append(loop_.buffers(),
                {static_cast<const char*>(parts[i].iov_base) + skip, parts[i].iov_len - skip});
  }
  if (state_ == State::kCall) ArmForState();
}

void Client::Flush() {
  const std::string_view waiting = out_.view();
  iovec part{const_cast<char*>(waiting.data()), waiting.size()};
  size_t sent = 0;
  const Io io = socket_.Send(&part, 1, loop_.record(), &sent);
  if (sent > 0) last_write_ = loop_.now();
  out_.Consume(sent);
  if (io == Io::kError) broken_ = true;
  ArmForState();
  if (behind()) return;
  out_.Free();
  if (state_ == State::kCall) call_->ClientCaughtUp();
}

void Client::EndAnswer(After after) {
  after_ = after;
  if (state_ == State::kBody) {
    if (!CanSkipBody() && after == After::kNext) after_ = After::kClose;
    used_ = std::min<size_t>(used_ + decoder_.framing().length, in_.size());
  }
  state_ = State::kFlush;
  loop_.wheel().Clear(timer_);
  Drive();
}

// A body that has come whole though nobody wanted it need not cost the connection.
bool Client::CanSkipBody() const {
  const http::Framing& framing = decoder_.framing();
  if (framing.kind == http::Framing::Kind::kNone) return true;
  return framing.kind == http::Framing::Kind::kLength && body_bytes_ == 0 &&
         in_.size() - used_ >= framing.length;
}

bool Client::StepFlush() {
  if (broken_) {
    OnGone();
    return false;
  }
  if (behind()) return false;
  FinishCall();
  if (after_ == After::kNext && !loop_.shared().draining.load(std::memory_order_relaxed)) {
    state_ = State::kIdle;
    return true;
  }
  if (after_ == After::kReset || hung_up_) {
    Close(after_ == After::kReset);
    return false;
  }
  Linger();
  return true;
}

// Ends our side; what the client still sends is read, lest a reset takes our last bytes from it.
void Client::Linger() {
  socket_.ShutdownSend();
  state_ = State::kLinger;
  loop_.wheel().Set(timer_, loop_.now() + kLingerLimit);
}

// The call is over, as all of its answer has been sent or the client has gone.
void Client::FinishCall() {
  CallImpl& call = *std::exchange(call_, nullptr);
  if (call.End()) {
    // Somebody still reads the request; what came behind it is ours.
    Buffer behind;
    behind.Append(loop_.buffers(), in_.view().substr(used_));
    // While somebody reads them they count as bodies that are under way.
    call.Keep(std::move(in_), std::move(body_));
    in_ = std::move(behind);
  } else {
    in_.Consume(used_);
  }
  used_ = 0;
  TakeAhead();
  ForgetBody();
  scanner_ = http::HeadScanner(
      {loop_.options().server.max_head_bytes, loop_.options().server.max_headers});
}

bool Client::StepLinger() {
  size_t got = 0;
  return Receive(loop_.scratch(), LoopImpl::kScratchBytes, &got);
}

void Client::ReleaseRequest() {
  if (state_ != State::kCall) return;
  ForgetBody();
  body_view_ = {};
  if (in_.size() > used_) return;  // the next request stands behind it
  in_.Free();
  used_ = 0;
}

// The client has left, or takes nothing.
void Client::OnGone() {
  broken_ = true;
  if (call_ != nullptr) {
    call_->ClientLeft();
    FinishCall();
  }
  Close();
}

void Client::Cut() {
  if (state_ != State::kClosed) OnGone();
}

void Client::CloseIfIdle() {
  if (idle()) Close();
}

void Client::Close(bool reset) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  loop_.wheel().Clear(timer_);
  socket_.Close(reset);
  TakeAhead();
  in_.Free();
  out_.Free();
  UncountHead();
  ForgetBody();
  if (std::exchange(introduced_, false)) loop_.policy().OnDisconnect(connection_);
  loop_.Retire(*this);
}

}  // namespace llmd::relay
