#include "cli/bench/loop.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace llmd::bench {
namespace {

constexpr size_t kBufferBytes = 256 * 1024;
constexpr int64_t kLongestWait = 100'000'000;  // ns; so that `stop` is seen
// Requests that are sent before the loop looks at its sockets again.
constexpr int kSendsInTurn = 16;

int64_t ThreadCpu() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// This share of `all`, so that the shares add up and differ by one at most.
uint64_t ShareOf(uint64_t all, uint64_t share, uint64_t of) {
  return all / of + (share < all % of ? 1 : 0);
}

}  // namespace

Loop::Loop(Run& run, uint64_t share, uint64_t of)
    : run_(run),
      share_(share),
      of_(of),
      idle_(run.options.targets.size()),
      max_in_flight_(ShareOf(static_cast<uint64_t>(run.options.max_connections), share, of)),
      arrivals_(run.options, run.trace, share, of),
      next_index_(share),
      buffer_(kBufferBytes, '\0') {
  if (run.options.stages.size() > 1) stages_.assign(run.options.stages.size(), Tally(7));
  tenants_.assign(run.options.tenants.size(), Tally(7));
}

Loop::~Loop() {
  for (const auto& connection : connections_) {
    connection->tls.reset();
    if (connection->fd >= 0) close(connection->fd);
  }
  if (epoll_ >= 0) close(epoll_);
}

Status Loop::Go() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return ResourceExhausted("epoll: " + std::string(std::strerror(errno)));
  // By default the kernel may wake a thread 50 us late.
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  if (Closed()) {
    EnterStage(0, 0);
  } else {
    PrepareArrival();
  }
  while (!Over() && broken_.ok() && !run_.stop.load(std::memory_order_relaxed)) Turn(Now());
  Interrupt();
  cpu_nanos_ = ThreadCpu();
  progress_.over = true;
  return broken_;
}

bool Loop::Over() const {
  if (in_flight_count_ != 0 || !waiting_.empty() || !cooling_.empty()) return false;
  return Closed() ? stage_ >= run_.options.stages.size() : arrivals_over_;
}

void Loop::Turn(int64_t now) {
  Expire(now);
  StartDue(now);
  if (!Over()) Poll(NextWake(Now()));
}

int64_t Loop::NextWake(int64_t now) const {
  int64_t at = now + kLongestWait;
  if (const Connection* first = in_flight_.first()) {
    at = std::min(at, first->sent + run_.options.timeout.count());
  }
  const bool room = in_flight_count_ < max_in_flight_;
  if (!waiting_.empty() && room) at = std::min(at, waiting_.front().at);
  if (!cooling_.empty()) at = std::min(at, cooling_.front());
  if (next_ && room) at = std::min(at, next_->intended);
  if (Closed() && stage_ < run_.options.stages.size()) {
    const bool over = StageOver(now);
    if (now < stage_begin_) {
      at = std::min(at, stage_begin_);
    } else if (over ? active_ == 0 : active_ < stage_slots_) {
      at = now;
    }
  }
  return std::max<int64_t>(0, at - now);
}

void Loop::Poll(int64_t wait_nanos) {
  epoll_event events[64];
  const timespec wait{.tv_sec = wait_nanos / 1'000'000'000, .tv_nsec = wait_nanos % 1'000'000'000};
  const int n = epoll_pwait2(epoll_, events, 64, &wait, nullptr);
  if (n < 0 && errno != EINTR) broken_ = Internal("epoll_pwait2: " + std::string(strerror(errno)));
  for (int i = 0; i < n; ++i) {
    const uint64_t key = events[i].data.u64;
    Connection& connection = *connections_[key & 0xffffffff];
    // An event of a socket that was closed in this very turn.
    if (connection.generation != key >> 32) continue;
    OnEvents(connection, events[i].events);
  }
}

// --- sending ---

void Loop::StartDue(int64_t now) {
  while (!cooling_.empty() && cooling_.front() <= now) {
    cooling_.pop_front();
    --active_;
  }
  for (int i = 0; i < kSendsInTurn && in_flight_count_ < max_in_flight_; ++i) {
    if (StartWaiting(now)) continue;
    if (!(Closed() ? StartClosed(now) : StartOpen(now))) return;
  }
}

bool Loop::StartWaiting(int64_t now) {
  if (waiting_.empty() || waiting_.front().at > now) return false;
  Waiting waiting = std::move(waiting_.front());
  waiting_.pop_front();
  Prepare(std::move(waiting.conversation), waiting.at, now_);
  Send(now_);
  return true;
}

bool Loop::StageTimeOver(int64_t now) const {
  const Duration duration = run_.options.stages[stage_].duration;
  return duration.count() != 0 && now >= stage_begin_ + duration.count();
}

void Loop::EnterStage(size_t stage, int64_t begin) {
  stage_ = stage;
  stage_begin_ = begin;
  if (stage >= run_.options.stages.size()) return;
  const Stage& plan = run_.options.stages[stage];
  stage_slots_ =
      static_cast<int64_t>(ShareOf(static_cast<uint64_t>(plan.concurrency), share_, of_));
  stage_left_ = plan.requests == 0 ? UINT64_MAX : ShareOf(plan.requests, share_, of_);
  if (stage_slots_ == 0) stage_left_ = 0;
}

bool Loop::StartClosed(int64_t now) {
  const auto& stages = run_.options.stages;
  if (stage_ >= stages.size() || now < stage_begin_) return false;
  if (StageOver(now)) {
    if (active_ > 0) return false;
    EnterStage(stage_ + 1, now + run_.options.stage_pause.count());
    return stage_ < stages.size();
  }
  if (active_ >= stage_slots_) return false;
  --stage_left_;
  ++active_;
  Conversation conversation = run_.workload.Start(next_index_, static_cast<uint32_t>(stage_));
  next_index_ += of_;
  Prepare(std::move(conversation), 0, now_);
  // A slot that is free has no time at which it should have sent.
  now_.intended = Now();
  Send(now_);
  return true;
}

bool Loop::StartOpen(int64_t now) {
  if (!next_ || next_->intended > now) return false;
  Send(*next_);
  PrepareArrival();
  return true;
}

void Loop::PrepareArrival() {
  const std::optional<Arrival> arrival = arrivals_.Next();
  if (!arrival) {
    next_.reset();
    arrivals_over_ = true;
    return;
  }
  if (!next_) next_ = Prepared{};
  Prepare(run_.workload.Start(arrival->index, arrival->stage), arrival->at_ns, *next_);
}

void Loop::Prepare(Conversation conversation, int64_t intended, Prepared& out) {
  out.intended = intended;
  out.conversation = std::move(conversation);
  out.target = (out.conversation.index + out.conversation.turn) % run_.options.targets.size();
  const std::string_view bytes = run_.workload.Build(out.conversation, out.target, out.request.own);
  out.request.fixed = bytes.data() == out.request.own.data() ? std::string_view() : bytes;
}

void Loop::Send(Prepared& prepared) {
  Connection& connection = *Take(prepared.target);
  std::swap(connection.conversation, prepared.conversation);
  std::swap(connection.request, prepared.request);
  connection.intended = prepared.intended;
  connection.resent = false;
  connection.counted = prepared.intended >= run_.options.warmup.count();
  connection.sent = Now();
  in_flight_.PushBack(connection);
  most_in_flight_ = std::max(most_in_flight_, ++in_flight_count_);
  CountSent(connection);
  ListenFor(connection);
  if (connection.state == Connection::State::kIdle) {
    connection.state = Connection::State::kBusy;
    connection.reused = true;
    Write(connection);
  } else {
    Open(connection);
  }
}

void Loop::CountSent(const Connection& connection) {
  progress_.in_flight.store(in_flight_count_, std::memory_order_relaxed);
  Bump(progress_.sent, 1);
  if (!connection.counted) {
    ++warmup_requests_;
    return;
  }
  const int64_t lateness = connection.sent - connection.intended;
  const Conversation& conversation = connection.conversation;
  total_.Sent(lateness);
  if (!stages_.empty()) stages_[conversation.stage].Sent(lateness);
  if (!tenants_.empty()) tenants_[conversation.tenant].Sent(lateness);
}

void Loop::ListenFor(Connection& connection) {
  const Conversation& conversation = connection.conversation;
  ResponseReader::Want want{.no_body = run_.options.method == "HEAD",
                            .usage = run_.options.api != Api::kRaw,
                            .text = run_.workload.HasNextTurn(conversation)};
  if (connection.counted) {
    want.gaps[0] = total_.mutable_gap();
    if (!stages_.empty()) want.gaps[1] = stages_[conversation.stage].mutable_gap();
    if (!tenants_.empty()) want.gaps[2] = tenants_[conversation.tenant].mutable_gap();
  }
  connection.reader.Start(want);
}

Connection* Loop::Take(size_t target) {
  std::vector<Connection*>& idle = idle_[target];
  if (!idle.empty()) {
    Connection* connection = idle.back();
    idle.pop_back();
    return connection;
  }
  if (closed_.empty()) {
    connections_.push_back(std::make_unique<Connection>());
    connections_.back()->number = static_cast<uint32_t>(connections_.size() - 1);
    closed_.push_back(connections_.back().get());
  }
  Connection* connection = closed_.back();
  closed_.pop_back();
  connection->target = target;
  return connection;
}

void Loop::Open(Connection& connection) {
  connection.reused = false;
  ++connection.generation;
  const int fd = Connect(run_.addresses[connection.target]);
  if (fd < 0) return Finish(connection, ConnectFailure(-fd));
  ++opened_;
  connection.fd = fd;
  connection.state = Connection::State::kConnecting;
  connection.waits_for_room = true;
  epoll_event event{.events = EPOLLIN | EPOLLOUT,
                    .data = {.u64 = uint64_t{connection.generation} << 32 | connection.number}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) Finish(connection, Failure::kLocal);
}

}  // namespace llmd::bench
