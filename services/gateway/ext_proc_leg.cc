// The tries of a request, and what happens when its picker is lost or takes it back.
#include <algorithm>

#include "gateway/ext_proc_call.h"
#include "gateway/ext_proc_policy.h"
#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

// A live picker that has not answered so many bytes for the whole timeout keeps them to itself.
constexpr size_t kKeptBytes = 128 << 10;
// How soon it is seen that a client has caught up.
constexpr Duration kLookAgain = std::chrono::milliseconds(16);
// A picker may be asked once more than endpoints are tried, and once again with all of them.
constexpr int kExtraAsks = 2;
constexpr std::string_view kTraceparent = "traceparent";

}  // namespace

bool ExtProcCall::HasFailed(std::string_view address) const {
  return std::find(failed_.begin(), failed_.end(), address) != failed_.end();
}

bool ExtProcCall::TryAmong(bool ejected_too) {
  for (const Endpoint& next : endpoints_) {
    if (HasFailed(next.address)) continue;
    const bool ejected = policy_.IsEjected(next.target);
    if (ejected && !ejected_too) continue;
    if (ejected) policy_.parts().metrics.panics.Add();
    tried_ = true;
    SendLeg(next.target, next.address);
    return true;
  }
  return false;
}

void ExtProcCall::TryNext() {
  const bool late = last_failure_ == relay::Failure::kDeadline;
  if (late || tries.Exhausted(policy_.parts().tries)) return LastWord();
  if (alone_) {
    const Endpoint* next = policy_.book().NextInTurn(failed_, policy_.Ejected());
    if (next == nullptr) next = policy_.book().NextInTurn(failed_, {});
    return next != nullptr ? SendLeg(next->target, next->address) : NobodyElse();
  }
  if (TryAmong(false)) return;
  // It was told which ones to leave out: it has no others, or does not heed hints.
  if (!tried_ && TryAmong(true)) return;
  if (!MayAsk()) return NobodyElse();
  DropStream(false);  // while it counts, it may be what keeps the next try waiting
  Ask();
}

bool ExtProcCall::MayAsk() const {
  return asks_ < tries.sent() + kExtraAsks;
}

// All have failed it. An engine's own refusal is passed on at once: waiting does not make it
// better.
void ExtProcCall::NobodyElse() {
  if (kept.there() && set_aside.busy) return LastWord();
  const auto wait = policy_.AgainIn(*call_, *this);
  if (!wait) return LastWord();
  DropStream(false);
  state_ = State::kBackOff;
  timer_set_ = true;
  call_->SetTimer(*wait);
}

// After the back-off.
void ExtProcCall::GoOn() {
  failed_.clear();
  panic_ = tried_ = false;
  if (alone_) return TryNext();
  state_ = State::kAsking;
  if (policy_.PickerIsLost(call_->now())) return Lost("gives no sign of life");
  Ask();
}

void ExtProcCall::LastWord() {
  if (!kept.there()) return NoneAnswered();
  DropStream(false);
  state_ = State::kOver;
  policy_.SendKept(*call_, *this);
}

std::string_view ExtProcCall::SetTraceparent() const {
  for (const relay::HeaderEdit& edit : edits_) {
    if (edit.name == kTraceparent && !edit.remove) return edit.value;
  }
  return {};
}

// In place of what the picker set.
void ExtProcCall::SetEdit(std::string_view name, std::string_view value) {
  std::erase_if(edits_, [name](const relay::HeaderEdit& edit) { return edit.name == name; });
  edits_.push_back({name, value, false});
}

void ExtProcCall::SendLeg(const relay::Target& target, std::string_view address) {
  if (tries.sent() > 0) policy_.parts().metrics.retries.Add();
  tries.OnSent();
  state_ = State::kLeg;
  endpoint = address;
  target_ = target;
  const std::string_view traceparent = policy_.observer().Sending(record, call_->now(),
                                                                  {.span = "gateway.upstream",
                                                                   .name = address,
                                                                   .address = address,
                                                                   .parent = SetTraceparent()});
  if (!traceparent.empty()) SetEdit(kTraceparent, traceparent);
  relay::SendOptions options;
  options.target = target;
  options.path = path_;
  options.headers = edits_;
  PolicyBase::Limit(*call_, *this, &options);
  const std::string_view body = edited_body_;
  if (body_edited_) {
    options.own_body = true;
    options.body = {&body, 1};
  }
  call_->Send(options);
}

void ExtProcCall::OnFailure(relay::Failure failure) {
  last_failure_ = failure;
  tries.OnFailed(failure);
  failed_.push_back(endpoint);
  TryNext();
}

// The endpoint said no, and why is kept.
void ExtProcCall::OnSetAside() {
  failed_.push_back(endpoint);
  TryNext();
}

void ExtProcCall::NoneAnswered() {
  DropStream(false);
  if (tries.sent() == 0) return Refuse(503, "no model server is known");
  if (last_failure_ == relay::Failure::kDeadline) return Refuse(504, PolicyBase::kTimeIsOver);
  Refuse(last_failure_ == relay::Failure::kTimeout ? 504 : 503, "no model server answered");
}

void ExtProcCall::GoWithoutPicker() {
  policy_.metrics().alone.Add();
  alone_ = true;
  body_edited_ = false;
  path_ = {};
  edits_.clear();
  for (std::string_view name : http::kRoutingHeaders) edits_.push_back({name, {}, true});
  edits_.push_back({"x-request-id", id, false});
  PolicyBase::AddRequestEdits(*this, edits_);
  TryNext();
}

bool ExtProcCall::Owes() const {
  return state_ == State::kAsking || state_ == State::kHead || state_ == State::kWhole ||
         (state_ == State::kBody && pipe_.owes());
}

Duration ExtProcCall::Patience() const {
  const Duration timeout = policy_.options().timeout;
  return state_ == State::kAsking ? timeout : timeout * ExtProcOptions::kAnswerPatience;
}

void ExtProcCall::Wait() {
  if (timer_set_ || call_ == nullptr) return;
  timer_set_ = true;
  call_->SetTimer(policy_.options().timeout / 2);
}

void ExtProcCall::Pause() {
  paused_ = timer_set_ = true;
  stream_->SetReading(false);
  call_->SetTimer(kLookAgain);
}

void ExtProcCall::ReadOnWhenSent() {
  if (stream_ == nullptr) return;
  timer_set_ = true;
  if (call_->unsent() > 0) return call_->SetTimer(kLookAgain);
  paused_ = timer_set_ = false;
  owed_since_ = call_->now();
  stream_->SetReading(true);
  Wait();
}

void ExtProcCall::OnTimer() {
  timer_set_ = false;
  if (state_ == State::kBackOff) return GoOn();
  if (paused_) return ReadOnWhenSent();
  if (stream_ == nullptr || !Owes()) return;
  const TimePoint now = call_->now();
  const Duration waited = now - owed_since_;
  if (state_ == State::kAsking && waited >= policy_.options().queue_timeout)
    return Lost("has not decided within --epp-queue-timeout");
  const bool kept_body = state_ == State::kBody && !pipe_.sent_end();
  if (state_ != State::kAsking && !kept_body && waited >= ExtProcOptions::kAnswerLimit)
    return Lost("has not answered");
  PickerClient& client = policy_.client();
  const Duration quiet = now - std::max(owed_since_, client.heard());
  if (quiet >= Patience() && client.unanswered_since() <= now - policy_.options().timeout / 2)
    return Lost("gives no sign of life");
  if (quiet >= Patience() / 2) client.Probe();
  if (kept_body && waited >= policy_.options().timeout && pipe_.held_bytes() >= kKeptBytes) {
    pipe_.GiveUpCopies();
    pipe_.Flush(*call_);
  }
  Wait();
}

void ExtProcCall::Lost(std::string_view why) {
  policy_.observer().Asked(record, why);
  policy_.metrics().lost.Add();
  policy_.parts().logger.Warn("lost the endpoint picker",
                              {{"x-request-id", PolicyBase::LoggedId(*this)}, {"why", why}});
  DropStream(false);
  const bool open = policy_.options().open;
  switch (state_) {
    case State::kAsking:
      return open ? GoWithoutPicker() : Refuse(503, "the endpoint picker does not answer");
    case State::kLeg:
      return open ? void() : Refuse(503, "the endpoint picker has gone");
    case State::kHead:
      return open ? PassOn() : Refuse(503, "the endpoint picker has gone");
    case State::kWhole:
      return open && pipe_.GoOnAlone(true) ? ForwardWhole()
                                           : Refuse(503, "the endpoint picker has gone");
    case State::kBody:
      if (!pipe_.GoOnAlone(open))
        return call_->BreakOff(PolicyBase::ErrorOf(*this, 502, "the endpoint picker has gone"));
      state_ = State::kPassing;
      return pipe_.Flush(*call_);
    default:
      return;
  }
}

void ExtProcCall::Refuse(int status, std::string_view message) {
  state_ = State::kOver;
  std::vector<relay::HeaderEdit> headers;
  headers.push_back({"content-type", "application/json", false});
  headers.push_back({"x-request-id", id, false});
  if (status == 503) headers.push_back({"retry-after", "1", false});
  PolicyBase::AddAnswerEdits(*this, headers);
  call_->Answer(status, headers, PolicyBase::ErrorOf(*this, status, message));
}

void ExtProcCall::Denied(const PickerAnswer& answer) {
  if (answer.status == 503 && excluded_ && !panic_ && MayAsk()) {
    panic_ = true;
    DropStream(false);
    return Ask();
  }
  if (tries.sent() > 0) return NobodyElse();  // the failure is the better answer
  PassDenial(answer);
}

void ExtProcCall::PassDenial(const PickerAnswer& answer) {
  const int status = answer.status >= 200 && answer.status <= 599 ? answer.status : 500;
  std::vector<relay::HeaderEdit> headers;
  std::string_view type;
  EachSetHeader(answer.mutation, [&](std::string_view name, std::string_view value) {
    if (name == "content-type") {
      type = value;
    } else if (name.front() != ':') {
      headers.push_back({name, value, false});
    }
  });
  const bool json = type.starts_with("application/json");
  headers.push_back({"content-type", "application/json", false});
  headers.push_back({"x-request-id", id, false});
  PolicyBase::AddAnswerEdits(*this, headers);
  state_ = State::kOver;
  DropStream(false);
  call_->Answer(status, headers,
                json ? std::string(answer.body) : PolicyBase::ErrorOf(*this, status, answer.body));
}

void ExtProcCall::Evicted(const PickerAnswer& answer) {
  if (state_ == State::kOver) return;
  policy_.parts().logger.Warn("the endpoint picker took the request back",
                              {{"x-request-id", PolicyBase::LoggedId(*this)}});
  if (state_ == State::kLeg || state_ == State::kHead || state_ == State::kWhole)
    return PassDenial(answer);
  const int status = answer.status;
  const std::string error = PolicyBase::ErrorOf(*this, status, answer.body);
  DropStream(false);
  state_ = State::kOver;
  call_->BreakOff(error);
}

void ExtProcCall::DropStream(bool whole) {
  if (stream_ == nullptr) return;
  if (whole) {
    stream_->Close();
  } else {
    stream_->Cancel();
  }
  stream_.reset();
}

}  // namespace llmd::gateway
