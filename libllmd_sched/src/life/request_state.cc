#include "life/request_state.h"

#include <utility>

#include "life/callback_scope.h"

namespace llmd::sched {

bool RequestState::Take(Step step) {
  std::lock_guard lock(mutex_);
  if (step == Step::kRoute && cancelled_) return false;
  const std::optional<Phase> next = After(phase_, step);
  if (next) phase_ = *next;
  return next.has_value();
}

bool RequestState::Cancel() {
  std::lock_guard lock(mutex_);
  if (phase_ >= Phase::kRouted) return false;
  cancelled_ = true;
  return true;
}

bool RequestState::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

std::function<void(const Denial&)> RequestState::TakeEvicted() {
  std::lock_guard lock(mutex_);
  return phase_ == Phase::kEnded ? nullptr : std::exchange(evicted, nullptr);
}

Turn::Turn(RequestState& state) : state_(state) {
  std::unique_lock lock(state_.mutex_);
  const std::thread::id me = std::this_thread::get_id();
  if (state_.turn_ == me) return;
  state_.turn_free_.wait(lock, [&] { return state_.turn_ == std::thread::id(); });
  state_.turn_ = me;
  held_ = true;
  routed_ = state_.phase_ == Phase::kRouted || state_.phase_ == Phase::kAnswering;
}

Turn::~Turn() {
  if (!held_) return;
  bool end = false;
  {
    std::lock_guard lock(state_.mutex_);
    state_.turn_ = {};
    end = std::exchange(state_.end_asked_, false);
  }
  state_.turn_free_.notify_one();
  if (end) state_.End(true);
}

void RequestState::End(bool aborted) {
  {
    std::lock_guard lock(mutex_);
    if (!After(phase_, Step::kEnd)) return;
    if (turn_ != std::thread::id()) {
      end_asked_ = true;
      return;
    }
    phase_ = Phase::kEnded;
    turn_ = std::this_thread::get_id();
  }
  Finish(aborted);
  {
    std::lock_guard lock(mutex_);
    turn_ = {};
    end_asked_ = false;
  }
  turn_free_.notify_one();
  if (flow == nullptr) return;
  const bool known = usage.prompt_tokens >= 0 && usage.completion_tokens >= 0;
  flow->Complete(dispatched,
                 known ? FlowUsage{.prompt_tokens = static_cast<double>(usage.prompt_tokens),
                                   .output_tokens = static_cast<double>(usage.completion_tokens),
                                   .known = true}
                       : FlowUsage{});
}

void RequestState::SetInCall(InCall* in_call) {
  std::lock_guard lock(mutex_);
  in_call_ = in_call;
}

Routing& RequestState::Target(Routing& own) {
  std::lock_guard lock(mutex_);
  const bool here = in_call_ != nullptr && in_call_->thread == std::this_thread::get_id();
  return here ? *in_call_->routing : own;
}

void RequestState::Answer(Routing& routing) {
  const CallbackScope scope(director);
  std::function<void(Routing)> tell = std::move(done);
  done = nullptr;
  input = {};
  setup.reset();
  snapshot.reset();
  {
    std::lock_guard lock(mutex_);
    if (in_call_ != nullptr && in_call_->thread == std::this_thread::get_id()) {
      in_call_->answered = true;
      in_call_ = nullptr;
      return;
    }
    in_call_ = nullptr;
  }
  RunCallback(director, logger, [&] {
    tell(std::move(routing));
    tell = nullptr;  // what it holds may come back
  });
}

void RequestState::Clear() {
  input = {};
  done = nullptr;
  setup.reset();
  rewrite.clear();
  ttl = {};
  flow = nullptr;
  dispatched = 0;
  ticket.store(0, std::memory_order_relaxed);
  snapshot.reset();
  again = lent = false;
  evicted = nullptr;
  revocable = false;
  parser = nullptr;
  context.Reset(0);
  reader.reset();
  graph.reset();
  parsed_under.reset();
  queue_headers.clear();
  debug_log.reset();
  spans.reset();
  tracer = nullptr;
  decision_header.clear();
  endpoint.reset();
  port = 0;
  others.clear();
  fallback.reset();
  series = nullptr;
  responding = nullptr;
  first_chunk = sse = body_skipped = encoded = false;
  status = 0;
  response_bytes = 0;
  response_work = {};
  first_chunk_at = last_chunk_at = {};
  usage = {};
  served.reset();
  report.clear();
  scanner.Reset();
  restorer.reset();
  phase_ = Phase::kReceived;
  cancelled_ = end_asked_ = false;
  turn_ = {};
  in_call_ = nullptr;
}

}  // namespace llmd::sched
