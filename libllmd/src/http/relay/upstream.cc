#include "http/relay/upstream.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "http/relay/call_impl.h"

namespace llmd::relay {
namespace {

constexpr size_t kHeadBytes = 4096;
// Then others have their turn.
constexpr size_t kBytesPerTurn = 256 * 1024;

}  // namespace

Upstream* UpstreamPool::Take(LoopImpl& loop) {
  if (idle_.empty()) return nullptr;
  Upstream* const last = idle_.back();
  Remove(loop, *last);
  return last;
}

bool UpstreamPool::Put(LoopImpl& loop, Upstream& upstream) {
  if (retired() || idle_.size() >= loop.options().max_idle_per_upstream) return false;
  upstream.pool_index = static_cast<uint32_t>(idle_.size());
  idle_.push_back(&upstream);
  LoopImpl::Bump(loop.counters.upstream_idle);
  return true;
}

void UpstreamPool::Remove(LoopImpl& loop, Upstream& upstream) {
  Upstream* const last = idle_.back();
  idle_[upstream.pool_index] = last;
  last->pool_index = upstream.pool_index;
  idle_.pop_back();
  LoopImpl::Bump(loop.counters.upstream_idle, ~size_t{0});
}

void UpstreamPool::CloseAll() {
  while (!idle_.empty()) idle_.back()->Close();
}

Upstream::Upstream(LoopImpl& loop)
    : loop_(loop), timer_([](void* self) { static_cast<Upstream*>(self)->OnTimer(); }, this) {}

bool Upstream::Connect(CallImpl& call, UpstreamPool& pool, const Target& target,
                       const UpstreamTls* tls) {
  const int fd = StartConnect(target);
  if (fd < 0) return false;
  socket_ = Socket(fd);
  pool_ = &pool;
  ++pool.users;
  call_ = &call;
  state_ = State::kConnecting;
  readable_ = hung_up_ = reused_ = false;
  written_ = 0;
  if (tls != nullptr) {
    socket_.UseTls(tls->context, tls->host.empty() ? target.AddressText() : tls->host,
                   loop_.warm());
  }
  LoopImpl::Bump(loop_.counters.connects);
  LoopImpl::Bump(loop_.counters.upstream_open);
  if (!loop_.Watch(fd, *this)) {
    const int error = errno;
    call_ = nullptr;
    Close();
    errno = error;
    return false;
  }
  SetTimer(call.leg().connect_timeout);
  return true;
}

void Upstream::Reuse(CallImpl& call) {
  call_ = &call;
  reused_ = true;
  // Whoever answers has acknowledged what was asked. Of TLS only the system knows the bytes.
  acked_before_ = socket_.tls() ? AckedBytes(socket_.fd()).value_or(0) : written_;
  Start();
}

// So long, but not beyond the end of the call's leg.
void Upstream::SetTimer(Duration patience) {
  loop_.wheel().Set(timer_, std::min(loop_.now() + patience, call_->leg().deadline));
}

// The request goes out; its answer may begin at any time.
void Upstream::Start() {
  state_ = State::kActive;
  ++epoch_;
  sent_ = 0;
  sent_all_ = write_failed_ = abandoned_ = false;
  silent_ = true;
  SetTimer(call_->leg().first_byte_timeout);
  Write();
}

void Upstream::Write() {
  std::vector<iovec>& parts = loop_.iovec_scratch();
  parts.clear();
  size_t skip = sent_;
  const auto add = [&](std::string_view part) {
    const size_t gone = std::min(skip, part.size());
    skip -= gone;
    if (gone < part.size())
      parts.push_back({const_cast<char*>(part.data()) + gone, part.size() - gone});
  };
  add(call_->leg_head());
  for (std::string_view part : call_->leg_body()) add(part);
  size_t sent = 0;
  const Io io = socket_.Send(parts.data(), parts.size(), loop_.record(), &sent);
  sent_ += sent;
  written_ += sent;
  sent_all_ = io == Io::kDone;
  if (io != Io::kError) return;
  // It may have answered before it broke off, or been closed while it was idle: reading tells.
  write_failed_ = readable_ = true;
  loop_.Defer(*call_, [](CallImpl& call) { call.PumpUpstream(); });
}

void Upstream::OnEvents(uint32_t events) {
  if (events == 0) again_ = false;
  // Told once, perhaps with the end of the connect: an upstream may speak before it is asked.
  hung_up_ |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  readable_ |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  switch (state_) {
    case State::kClosed:
      return;
    case State::kConnecting:
      OnConnecting(events);
      break;
    case State::kHandshake:
      OnHandshake();
      break;
    case State::kIdle:
      // What speaks or ends without being asked is of no use any more.
      if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) Close();
      return;
    case State::kActive:
      if ((events & EPOLLOUT) != 0 && !sent_all_ && !write_failed_ && !abandoned_) Write();
      break;
  }
  Pump();
}

void Upstream::OnConnecting(uint32_t events) {
  if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
  if (const int error = ConnectResult(socket_.fd()); error != 0) {
    return Fail(IsOurFault(error) ? Failure::kOurs : Failure::kRefused,
                std::string("connect: ") + std::strerror(error));
  }
  state_ = State::kHandshake;
  OnHandshake();
}

void Upstream::OnHandshake() {
  switch (socket_.Handshake()) {
    case Io::kDone:
      readable_ |= socket_.tls();
      return Start();
    case Io::kAgain:
      return;
    default:
      return Fail(Failure::kRefused, "TLS handshake: " + socket_.TlsFailure());
  }
}

void Upstream::Fail(Failure failure, std::string what) {
  CallImpl& call = *std::exchange(call_, nullptr);
  Close();
  call.OnLegFailed(failure, what);
}

// Takes what has come as long as the call wants it.
void Upstream::Pump() {
  if (pumping_ || state_ != State::kActive) return;
  pumping_ = true;
  taken_ = 0;
  const uint64_t epoch = epoch_;
  while (state_ == State::kActive && epoch == epoch_ && readable_ && taken_ < kBytesPerTurn &&
         call_->wants_bytes() && Receive()) {
  }
  pumping_ = false;
  if (state_ != State::kActive || epoch != epoch_) return;
  if (write_failed_ && !readable_) return OnEnd(/*in_order=*/false);
  if (taken_ >= kBytesPerTurn && !std::exchange(again_, true)) loop_.Again(*this);
  // A client that reads slowly holds the answer back; that is not the upstream's silence.
  if (!call_->wants_bytes()) return loop_.wheel().Set(timer_, call_->leg().deadline);
  if (!silent_) SetTimer(call_->leg().gap_timeout);
}

bool Upstream::Receive() {
  const bool stored = !in_.empty();
  if (stored) {
    const char* const before = in_.view().data();
    in_.Reserve(loop_.buffers(), kHeadBytes);
    call_->UpstreamBytesMoved(before, in_.view().data());
  }
  char* const to = stored ? in_.room() : loop_.scratch();
  const size_t room = stored ? in_.room_bytes() : LoopImpl::kScratchBytes;
  size_t got = 0;
  switch (socket_.Receive(to, room, &got)) {
    case Io::kDone:
      if (got < room && socket_.short_read_is_all() && !hung_up_) readable_ = false;
      silent_ = false;
      taken_ += got;
      if (stored) in_.Added(got);
      Feed(stored ? in_.view() : std::string_view(to, got), stored);
      return true;
    case Io::kAgain:
      readable_ = false;
      return false;
    case Io::kEnd:
      OnEnd(/*in_order=*/true);
      return false;
    default:
      OnEnd(/*in_order=*/false);
      return false;
  }
}

void Upstream::Feed(std::string_view bytes, bool stored) {
  const uint64_t epoch = epoch_;
  const size_t taken = call_->OnUpstreamBytes(bytes);
  if (state_ != State::kActive || epoch != epoch_) return;
  if (stored) {
    in_.Consume(taken);
  } else if (taken < bytes.size()) {
    const std::string_view rest = bytes.substr(taken);
    in_.Append(loop_.buffers(), rest);
    call_->UpstreamBytesMoved(rest.data(), in_.view().data());
  }
  if (in_.empty()) in_.Free();
}

void Upstream::Resume() {
  if (state_ != State::kActive || pumping_) return;
  const uint64_t epoch = epoch_;
  pumping_ = true;
  Feed(in_.view(), true);
  pumping_ = false;
  if (epoch == epoch_) Pump();
}

void Upstream::OnEnd(bool in_order) {
  CallImpl& call = *call_;
  if (Swallowed() && call.TakeReplay()) {
    Close();
    return call.Replay();
  }
  call.OnUpstreamEnd(in_order);
}

// Whether the upstream had closed the connection before the request came to it. One that took the
// request and then broke off may have begun to serve it.
bool Upstream::Swallowed() const {
  if (!reused_ || !silent_ || call_->answer_begun()) return false;
  if (write_failed_) return true;
  const std::optional<uint64_t> acked = AckedBytes(socket_.fd());
  return acked && *acked <= acked_before_ + 1;
}

void Upstream::OnTimer() {
  const bool late = call_ != nullptr && call_->leg().deadline <= loop_.now();
  switch (state_) {
    case State::kConnecting:
    case State::kHandshake:
      if (late) return Fail(Failure::kDeadline, "the request's time is over");
      return Fail(Failure::kRefused, "connect: not connected in time");
    case State::kActive:
      if (late) return Fail(Failure::kDeadline, "the request's time is over");
      return Fail(Failure::kTimeout, silent_ ? "no answer within the first-byte timeout"
                                             : "silent for longer than the gap timeout");
    case State::kIdle:
    case State::kClosed:
      return Close();
  }
}

void Upstream::Done(bool clean) {
  call_ = nullptr;
  ++epoch_;
  const bool usable = clean && sent_all_ && !write_failed_ && !hung_up_ && NothingMore() &&
                      !loop_.shared().draining.load(std::memory_order_relaxed);
  if (!usable || !pool_->Put(loop_, *this)) return Close();
  state_ = State::kIdle;
  loop_.Retire(std::move(in_));
  loop_.wheel().Set(timer_, loop_.now() + loop_.options().upstream_idle_timeout);
}

// What came behind an answer would be taken for the next one.
bool Upstream::NothingMore() {
  size_t got = 0;
  if (readable_ && socket_.Receive(loop_.record(), 1, &got) == Io::kAgain) readable_ = false;
  return !readable_;
}

void Upstream::Close() {
  if (state_ == State::kClosed) return;
  if (state_ == State::kIdle) pool_->Remove(loop_, *this);
  state_ = State::kClosed;
  call_ = nullptr;
  ++epoch_;
  loop_.wheel().Clear(timer_);
  socket_.Close();
  loop_.Retire(std::move(in_));
  --pool_->users;
  LoopImpl::Bump(loop_.counters.upstream_open, ~size_t{0});
  loop_.Retire(*this);
}

}  // namespace llmd::relay
