#include "http/relay/call_impl.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "http/relay/client.h"
#include "http/relay/head_writer.h"
#include "http/relay/upstream.h"

namespace llmd::relay {

CallImpl::CallImpl(LoopImpl& loop, uint32_t slot)
    : loop_(loop),
      slot_(slot),
      timer_(
          [](void* self) {
            auto& call = *static_cast<CallImpl*>(self);
            if (!call.over()) call.loop_.policy().OnTimer(call);
          },
          this),
      line_timer_([](void* self) { static_cast<CallImpl*>(self)->FlushLine(); }, this),
      heartbeat_timer_([](void* self) { static_cast<CallImpl*>(self)->Heartbeat(); }, this) {}

CallImpl::~CallImpl() = default;

void CallImpl::Begin(Client* client, TimePoint received) {
  client_ = client;
  phase_ = client != nullptr ? Phase::kReading : Phase::kDeciding;
  outcome_ = {};
  outcome_.received = received;
}

// For the next request; buffers stay.
void CallImpl::Reset() {
  context = nullptr;
  error_event = {};
  retained_ = paused_ = replayed_ = false;
  client_ = nullptr;
  head_.Clear();
  loop_.wheel().Clear(timer_);
  loop_.wheel().Clear(line_timer_);
  loop_.wheel().Clear(heartbeat_timer_);
  kept_input_.Free();
  kept_body_.Free();
  kept_body_view_ = {};
  loop_.shared().body_bytes.fetch_sub(std::exchange(kept_bytes_, 0), std::memory_order_relaxed);
  leg_ = {};
  leg_body_.clear();
  collected_.Free();
  pending_head_.clear();
  line_.clear();
  unsettled_ = 0;
  tail_ = {};
}

std::string_view CallImpl::body() const {
  return client_ != nullptr ? client_->body() : kept_body_view_;
}
std::string_view CallImpl::peer() const {
  return client_ != nullptr ? std::string_view(client_->peer()) : std::string_view();
}
Connection* CallImpl::connection() const {
  return client_ != nullptr ? &client_->connection() : nullptr;
}
bool CallImpl::tls() const {
  return client_ != nullptr && client_->tls();
}

std::string_view CallImpl::client_subject() const {
  return client_ != nullptr ? std::string_view(client_->subject()) : std::string_view();
}

void CallImpl::Decide() {
  phase_ = Phase::kDeciding;
  loop_.policy().OnRequest(*this);
}

size_t CallImpl::unsent() const {
  return client_ != nullptr ? client_->unsent() : 0;
}

void CallImpl::SetTimer(Duration delay) {
  if (delay <= Duration::zero()) return loop_.wheel().Clear(timer_);
  loop_.wheel().Set(timer_, loop_.now() + delay);
}

std::string CallImpl::Where() const {
  return leg_.target.ToString() + ": ";
}

void CallImpl::Send(const SendOptions& options) {
  if (phase_ == Phase::kReading || phase_ >= Phase::kRelaying) return;
  DropUpstream();
  leg_ = options;
  if (!leg_.tls) leg_.tls = loop_.upstream_tls();
  leg_body_.clear();
  if (!options.own_body) {
    if (!body().empty()) leg_body_.push_back(body());
  } else {
    for (std::string_view part :
         options.body.first(std::min<size_t>(options.body.size(), SendOptions::kMaxBodyParts))) {
      if (!part.empty()) leg_body_.push_back(part);
    }
  }
  uint64_t bytes = 0;
  for (std::string_view part : leg_body_) bytes += part.size();
  const bool has_body = options.own_body ? !options.body.empty() : this->has_body();
  WriteLegHead(options, client_ != nullptr ? &head_.view : nullptr, {peer(), tls()}, has_body,
               bytes, &leg_head_);
  leg_to_head_ = (options.method.empty() ? head_.view.method : options.method) == "HEAD";
  leg_.method = leg_.path = {};
  leg_.headers = {};
  leg_.body = {};
  StartLeg(/*may_reuse=*/true);
}

void CallImpl::StartLeg(bool may_reuse) {
  phase_ = Phase::kLeg;
  paused_ = upstream_ended_ = false;
  informational_ = 0;
  held_head_bytes_ = 0;
  scanner_ = http::HeadScanner(
      {loop_.options().server.max_head_bytes, loop_.options().server.max_headers});
  UpstreamPool& pool = loop_.PoolOf(leg_.target, leg_.tls);
  Upstream* idle = may_reuse ? pool.Take(loop_) : nullptr;
  if (idle != nullptr) {
    upstream_ = idle;
    idle->Reuse(*this);
    return;
  }
  upstream_ = &loop_.TakeUpstream();
  if (upstream_->Connect(*this, pool, leg_.target, leg_.tls.get())) return;
  // Told after the hook that sent it has returned.
  const int error = errno;
  upstream_ = nullptr;
  failure_ = IsOurFault(error) ? Failure::kOurs : Failure::kRefused;
  failure_text_ = std::string("connect: ") + std::strerror(error);
  loop_.Defer(*this, [](CallImpl& call) { call.DeliverFailure(); });
}

void CallImpl::DeliverFailure() {
  if (phase_ != Phase::kLeg || upstream_ != nullptr) return;
  phase_ = Phase::kDeciding;
  const std::string what = Where() + failure_text_;
  loop_.policy().OnFailure(*this, failure_, what);
}

void CallImpl::PumpUpstream() {
  if (upstream_ != nullptr) upstream_->Pump();
}

void CallImpl::Replay() {
  upstream_ = nullptr;
  LoopImpl::Bump(loop_.counters.replays);
  StartLeg(/*may_reuse=*/false);
}

void CallImpl::DropUpstream() {
  if (upstream_ != nullptr) std::exchange(upstream_, nullptr)->Close();
}

void CallImpl::Drop() {
  if (phase_ != Phase::kLeg && phase_ != Phase::kHead && phase_ != Phase::kCollecting) return;
  DropUpstream();
  collected_.Free();
  phase_ = Phase::kDeciding;
}

// The upstream's connection is over, by its fault or by its silence.
void CallImpl::OnLegFailed(Failure failure, std::string_view what) {
  const std::string text = Where().append(what);
  DropUpstream();
  switch (phase_) {
    case Phase::kLeg:
    case Phase::kHead:
    case Phase::kCollecting: {
      phase_ = Phase::kDeciding;
      collected_.Free();
      return loop_.policy().OnFailure(*this, failure, text);
    }
    case Phase::kRelaying:
      return Cut(failure, text);
    default:
      return;
  }
}

void CallImpl::OnUpstreamEnd(bool in_order) {
  if (in_order && decoder_.until_close() && phase_ == Phase::kRelaying) return EndUntilClose();
  if (in_order && decoder_.until_close() && phase_ == Phase::kCollecting) return LegDone(0);
  if (phase_ == Phase::kLeg)
    return OnLegFailed(Failure::kReset,
                       in_order ? "closed before the answer" : "reset before the answer");
  OnLegFailed(Failure::kReset, in_order ? "cut its answer short" : "reset within its answer");
}

void CallImpl::Answer(int status, std::span<const HeaderEdit> headers, std::string_view body) {
  if (phase_ >= Phase::kRelaying) return;
  DropUpstream();
  if (client_ == nullptr) return EndDetached();
  const bool bodyless = status < 200 || status == 204 || status == 304;
  // What was refused may have left the connection at an unknown place.
  const bool keep =
      !outcome_.refused && head_.keep_alive && keep_client() && client_->body_settled();
  http::ResponseFraming framing{bodyless ? Body::kNone : Body::kLength, body.size()};
  framing.persist = PersistLine(keep);
  std::string& head = loop_.head_scratch();
  WriteOwnHead(status, headers, framing, &head);
  outcome_.status = status;
  outcome_.head_sent = loop_.now();
  const bool sends_body = !bodyless && head_.view.method != "HEAD";
  const std::array<std::string_view, 2> parts = {head, sends_body ? body : std::string_view()};
  SendParts(parts);
  outcome_.body_bytes = parts[1].size();
  outcome_.whole = true;
  EndOnClient(keep, false);
}

bool CallImpl::keep_client() const {
  return !loop_.shared().draining.load(std::memory_order_relaxed);
}

http::ResponseFraming::Persist CallImpl::PersistLine(bool keep) const {
  using Persist = http::ResponseFraming::Persist;
  if (!keep) return Persist::kClose;
  return head_.view.version_minor == 0 ? Persist::kKeepAlive : Persist::kDefault;
}

void CallImpl::Abort() {
  if (phase_ >= Phase::kAnswered) return;
  if (client_ == nullptr) return EndDetached();
  if (phase_ == Phase::kRelaying) return CutAnswer();
  DropUpstream();
  EndOnClient(false, false);
}

void CallImpl::EndDetached() {
  DropUpstream();
  phase_ = Phase::kAnswered;
  loop_.Defer(*this, [](CallImpl& call) {
    if (call.phase_ != Phase::kAnswered || call.client_ != nullptr) return;
    (void)call.End();
  });
}

void CallImpl::EndOnClient(bool keep, bool reset) {
  phase_ = Phase::kAnswered;
  loop_.wheel().Clear(timer_);
  loop_.wheel().Clear(line_timer_);
  loop_.wheel().Clear(heartbeat_timer_);
  client_->EndAnswer(reset  ? Client::After::kReset
                     : keep ? Client::After::kNext
                            : Client::After::kClose);
}

void CallImpl::ClientCaughtUp() {
  if (!std::exchange(paused_, false) || phase_ != Phase::kRelaying || upstream_ == nullptr) return;
  upstream_->Resume();
}

void CallImpl::ClientBroke() {
  if (client_ != nullptr && phase_ < Phase::kOver) client_->Cut();
}

void CallImpl::ClientLeft() {
  DropUpstream();
  outcome_.client_gone = true;
  outcome_.whole = false;
}

bool CallImpl::End() {
  phase_ = Phase::kOver;
  loop_.wheel().Clear(timer_);
  loop_.wheel().Clear(line_timer_);
  loop_.wheel().Clear(heartbeat_timer_);
  outcome_.ended = loop_.now();
  ending_ = true;
  loop_.policy().OnEnd(*this, outcome_);
  ending_ = false;
  if (retained_) {
    kept_body_view_ = body();
    client_ = nullptr;
    return true;
  }
  loop_.FreeCall(*this);
  return false;
}

void CallImpl::Keep(Buffer input, Buffer body) {
  kept_input_ = std::move(input);
  kept_body_ = std::move(body);
  kept_bytes_ = kept_input_.size() + kept_body_.size();
  loop_.shared().body_bytes.fetch_add(kept_bytes_, std::memory_order_relaxed);
}

void CallImpl::LetGo() {
  if (!std::exchange(retained_, false) || ending_ || phase_ != Phase::kOver) return;
  loop_.FreeCall(*this);
}

}  // namespace llmd::relay
