#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cli/bench/loop.h"

namespace llmd::bench {
namespace {

constexpr int64_t kCooling = 10'000'000;  // ns; until a slot whose connection failed goes on
constexpr int kReadsInTurn = 16;

// Whether going on at once would only fail again, as fast as the machine can.
bool NeedsCooling(Failure failure) {
  return failure == Failure::kRefused || failure == Failure::kConnect ||
         failure == Failure::kLocal || failure == Failure::kTls || failure == Failure::kReset ||
         failure == Failure::kClosed;
}

}  // namespace

void Loop::Write(Connection& connection) {
  const std::string_view bytes = connection.request.bytes();
  while (connection.written < bytes.size()) {
    const ssize_t n = connection.Send(bytes.substr(connection.written));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    // What the peer said before it closed is read first, by the event that follows.
    if (n < 0) return;
    connection.written += static_cast<size_t>(n);
  }
  WaitForRoom(connection, connection.written < bytes.size());
}

void Loop::WaitForRoom(Connection& connection, bool wait) {
  if (wait == connection.waits_for_room) return;
  connection.waits_for_room = wait;
  epoll_event event{.events = EPOLLIN | (wait ? static_cast<uint32_t>(EPOLLOUT) : 0u),
                    .data = {.u64 = uint64_t{connection.generation} << 32 | connection.number}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
}

void Loop::OnEvents(Connection& connection, uint32_t events) {
  if (connection.state == Connection::State::kConnecting) return OnConnected(connection);
  if (connection.state == Connection::State::kHandshake) return Handshake(connection);
  if ((events & EPOLLOUT) != 0 && connection.state == Connection::State::kBusy) Write(connection);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Read(connection);
}

void Loop::OnConnected(Connection& connection) {
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return Finish(connection, ConnectFailure(error));
  const http::Url& target = run_.options.targets[connection.target];
  if (target.tls) {
    connection.tls = std::make_unique<http::TlsSession>(run_.tls, connection.fd, target.peer.host);
    connection.state = Connection::State::kHandshake;
    return Handshake(connection);
  }
  connection.state = Connection::State::kBusy;
  Write(connection);
}

void Loop::Handshake(Connection& connection) {
  using Step = http::TlsSession::Step;
  const Step step = connection.tls->Handshake();
  if (step == Step::kWantRead || step == Step::kWantWrite) {
    return WaitForRoom(connection, step == Step::kWantWrite);
  }
  if (step != Step::kDone) return Finish(connection, Failure::kTls);
  connection.state = Connection::State::kBusy;
  Write(connection);
}

void Loop::Read(Connection& connection) {
  for (int i = 0; i < kReadsInTurn; ++i) {
    const ssize_t n = connection.Receive(buffer_.data(), buffer_.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (connection.state == Connection::State::kIdle) {
      // The peer closed it, or speaks unasked.
      std::erase(idle_[connection.target], &connection);
      return Close(connection);
    }
    if (n < 0) return OnCut(connection, Failure::kReset);
    if (n == 0) {
      const bool whole = connection.reader.FeedEnd() == ResponseReader::State::kDone;
      return whole ? Finish(connection, Failure::kNone) : OnCut(connection, Failure::kClosed);
    }
    const auto bytes = std::string_view(buffer_.data(), static_cast<size_t>(n));
    const ResponseReader::State state = connection.reader.Feed(bytes, Now());
    if (state == ResponseReader::State::kBad) return Finish(connection, Failure::kProtocol);
    if (state == ResponseReader::State::kDone) return Finish(connection, Failure::kNone);
    const bool more = connection.tls ? connection.tls->pending() : bytes.size() == buffer_.size();
    if (!more) return;
  }
}

// A server may close a kept connection at the moment a request is sent on it: that request, if
// nothing of its answer has come, is sent once more on a new connection, its times kept.
void Loop::OnCut(Connection& connection, Failure failure) {
  if (!connection.reused || connection.resent || connection.reader.started()) {
    return Finish(connection, failure);
  }
  ++reconnects_;
  connection.resent = true;
  connection.written = 0;
  ListenFor(connection);
  connection.tls.reset();
  close(connection.fd);
  connection.fd = -1;
  Open(connection);
}

void Loop::Expire(int64_t now) {
  while (Connection* first = in_flight_.first()) {
    if (first->sent + run_.options.timeout.count() > now) return;
    const bool connecting = first->state == Connection::State::kConnecting ||
                            first->state == Connection::State::kHandshake;
    Finish(*first, connecting ? Failure::kConnectTimeout : Failure::kTimeout);
  }
}

Failure Loop::Judge(const Answer& answer) const {
  if (answer.status >= 300) return Failure::kStatus;
  if (answer.error_seen) return Failure::kStreamError;
  const bool cut = answer.event_stream && !answer.done_seen && run_.options.api != Api::kRaw;
  return cut ? Failure::kStreamCut : Failure::kNone;
}

void Loop::Finish(Connection& connection, Failure failure) {
  const Answer& answer = connection.reader.answer();
  const bool answered = failure == Failure::kNone;
  if (answered) failure = Judge(answer);
  const Conversation& conversation = connection.conversation;
  Outcome outcome{.intended = connection.intended,
                  .sent = connection.sent,
                  .first_token = answer.first_token,
                  .last_token = answer.last_token,
                  .end = Now(),
                  .failure = failure,
                  .status = answer.status,
                  .has_usage = answer.has_usage,
                  .prompt_tokens = conversation.prompt_tokens,
                  .output_tokens = answer.token_events,
                  .cached_tokens = answer.cached_tokens,
                  .bytes_out = connection.written,
                  .bytes_in = answer.body_bytes};
  if (answer.has_usage) {
    outcome.prompt_tokens = answer.prompt_tokens;
    outcome.output_tokens = answer.completion_tokens;
  }
  Count(connection, outcome);
  in_flight_.Remove(connection);
  --in_flight_count_;
  progress_.in_flight.store(in_flight_count_, std::memory_order_relaxed);
  Continue(connection, outcome);
  const bool all_sent = connection.written == connection.request.bytes().size();
  connection.written = 0;
  if (answered && all_sent && connection.reader.keep_alive()) {
    connection.state = Connection::State::kIdle;
    idle_[connection.target].push_back(&connection);
  } else {
    Close(connection);
  }
}

void Loop::Count(const Connection& connection, const Outcome& outcome) {
  const bool failed = outcome.failure != Failure::kNone;
  Bump(failed ? progress_.failed : progress_.completed, 1);
  Bump(progress_.output_tokens, outcome.output_tokens);
  if (!connection.counted) return;
  const Slo& slo = run_.options.slo;
  total_.Add(outcome, slo);
  if (!stages_.empty()) stages_[connection.conversation.stage].Add(outcome, slo);
  if (!tenants_.empty()) tenants_[connection.conversation.tenant].Add(outcome, slo);
  series_.Add(outcome);
}

// The conversation's next turn, or its end; after a failure it ends.
void Loop::Continue(Connection& connection, const Outcome& outcome) {
  Conversation& conversation = connection.conversation;
  const bool more = outcome.failure == Failure::kNone && run_.workload.HasNextTurn(conversation) &&
                    !(Closed() && StageTimeOver(outcome.end));
  if (more) {
    run_.workload.NextTurn(conversation, connection.reader.text(), outcome.output_tokens);
    waiting_.push_back({outcome.end + run_.options.think.count(), std::move(conversation)});
    conversation = {};
    return;
  }
  if (!Closed()) return;
  if (NeedsCooling(outcome.failure)) {
    cooling_.push_back(outcome.end + kCooling);
  } else {
    --active_;
  }
}

void Loop::Close(Connection& connection) {
  connection.tls.reset();
  if (connection.fd >= 0) close(connection.fd);
  connection.fd = -1;
  ++connection.generation;
  connection.state = Connection::State::kClosed;
  closed_.push_back(&connection);
}

void Loop::Interrupt() {
  const int64_t now = Now();
  while (Connection* first = in_flight_.first()) {
    if (first->counted) {
      const int64_t waited = now - first->intended;
      total_.AddInterrupted(waited);
      if (!stages_.empty()) stages_[first->conversation.stage].AddInterrupted(waited);
      if (!tenants_.empty()) tenants_[first->conversation.tenant].AddInterrupted(waited);
    }
    in_flight_.Remove(*first);
    --in_flight_count_;
    Close(*first);
  }
}

}  // namespace llmd::bench
