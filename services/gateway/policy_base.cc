#include "gateway/policy_base.h"

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>

#include "llmd/http/error_body.h"
#include "llmd/uuid.h"

namespace llmd::gateway {
namespace {

using relay::Call;
using relay::HeaderEdit;

constexpr size_t kLoggedIdBytes = 128;
constexpr size_t kProbeBytes = 64 * 1024;
constexpr Duration kProbeTimeout = std::chrono::seconds(2);
constexpr Duration kModelsTimeout = std::chrono::seconds(5);

// A GET of our own.
relay::SendOptions OwnGet(const relay::Target& target, std::string_view path,
                          std::span<const HeaderEdit> headers, size_t collect_bytes,
                          Duration timeout) {
  relay::SendOptions out;
  out.target = target;
  out.method = "GET";
  out.path = path;
  out.own_headers = out.own_body = true;
  out.headers = headers;
  out.collect_bytes = collect_bytes;
  out.connect_timeout = out.first_byte_timeout = out.gap_timeout = timeout;
  return out;
}

// Its clients expect errors in Anthropic's form.
bool IsAnthropic(std::string_view path) {
  constexpr std::string_view kMessages = "/v1/messages";
  return path.starts_with(kMessages) &&
         (path.size() == kMessages.size() || path[kMessages.size()] == '/');
}

}  // namespace

PolicyBase::PolicyBase(const PolicyParts& parts, relay::Loop& loop)
    : parts_(parts),
      loop_(loop),
      keeper_(parts.doors, loop.index()),
      backoff_(parts.seed + static_cast<uint64_t>(loop.index())),
      observer_(parts.observed, loop.index()) {
  if (loop.index() == 0) (void)loop.Post([this] { RefreshModels(); });  // before the first tick
}

std::string_view PolicyBase::LoggedId(const Request& request) {
  return std::string_view(request.id).substr(0, kLoggedIdBytes);
}

// What is needed of the head once it has gone.
PolicyBase::Request& PolicyBase::Begin(Call& call) {
  Request& request = Take();
  call.context = &request;
  const http::RequestView& head = call.request();
  request.method.assign(head.method);
  request.path.assign(head.path());
  request.id.assign(head.headers.Get(http::Known::kXRequestId).value_or(""));
  if (request.id.empty()) AssignUuid(request.id, RandomBits(), RandomBits());
  request.endpoint.clear();
  request.visit = nullptr;
  request.blamed = request.passed = false;
  request.answered = request.reading = request.left = request.models_page = false;
  request.page = nullptr;
  request.probe = 0;
  request.anthropic = IsAnthropic(request.path);
  if (request.anthropic) call.error_event = "error";
  request.timeouts = &parts_.timeouts.Of(request.path);
  request.tries.Reset();
  request.kept.Clear();
  observer_.Begin(request.record, call);
  request.models_of.name.clear();
  parts_.metrics.inflight.Add(1);
  return request;
}

void PolicyBase::OnRefused(Call& call, const relay::Refusal& refusal) {
  if (call.context == nullptr) Begin(call);
  observer_.Refused(Of(call).record, refusal);
  if (refusal.code.empty()) return Answer(call, refusal.status, refusal.message);
  doors::Refusal told;
  told.Set(refusal.status, refusal.code, refusal.message);
  told.retry_after_s = refusal.retry_after_s;
  Refuse(call, Of(call), told);
}

std::string PolicyBase::ErrorOf(const Request& request, int status, std::string_view message) {
  return request.anthropic ? http::AnthropicErrorBody(status, message)
                           : http::ErrorBody(status, message);
}

void PolicyBase::AnswerWith(Call& call, const http::Response& response) {
  edits_.clear();
  for (const auto& [name, value] : response.head.headers.lines()) edits_.push_back({name, value});
  edits_.push_back({"x-request-id", Of(call).id});
  AddAnswerEdits(Of(call), edits_);
  call.Answer(response.head.status, edits_, response.body);
}

void PolicyBase::Answer(Call& call, int status, std::string_view message) {
  const std::string body = message.empty() ? "" : ErrorOf(Of(call), status, message);
  edits_.clear();
  if (!body.empty()) edits_.push_back({"content-type", "application/json"});
  edits_.push_back({"x-request-id", Of(call).id});
  AddAnswerEdits(Of(call), edits_);
  call.Answer(status, edits_, body);
}

void PolicyBase::OnFailure(Call& call, relay::Failure failure, std::string_view what) {
  Request& request = Of(call);
  if (request.probe != 0) {
    // What is no fault of the endpoint's says nothing about it: asked again later.
    if (failure == relay::Failure::kOurs) {
      parts_.health.NotProbed(request.probe);
    } else {
      parts_.health.Probed(request.probe, false);
    }
    return call.Abort();
  }
  if (!request.models_of.name.empty()) {
    parts_.models.Failed(request.models_of, what, call.now());
    return call.Abort();
  }
  Blame(request, failure, what);
  LegFailed(call, request, failure, what);
}

void PolicyBase::Blame(Request& request, relay::Failure failure, std::string_view what, bool sure) {
  observer_.Failed(request.record, failure, what);
  request.passed = false;
  relay::Target target;
  const Key key = Answering(request, &target);
  const bool ejected = sure
                           ? parts_.health.Lost(key, target)
                           : Counts(request, failure) && parts_.health.Failed(key, target, failure);
  const bool ours = failure == relay::Failure::kOurs;
  parts_.logger.Warn(ours ? "no connection can be made here" : "endpoint failed before its answer",
                     {{"x-request-id", LoggedId(request)},
                      {"endpoint", request.endpoint},
                      {"kind", relay::NameOf(failure)},
                      {"error", what},
                      {"ejected", ejected}});
}

// What a request does to one endpoint after the other is held against the first alone: it may be
// the request. Connections that are refused are no request's doing.
bool PolicyBase::Counts(Request& request, relay::Failure failure) {
  const bool by_request = failure == relay::Failure::kReset ||
                          failure == relay::Failure::kTimeout ||
                          failure == relay::Failure::kProtocol;
  return !by_request || !std::exchange(request.blamed, true);
}

std::optional<Duration> PolicyBase::AgainIn(const Call& call, Request& request) {
  return request.tries.Again(call.now(), request.timeouts->DeadlineOf(call.received()),
                             parts_.tries, backoff_);
}

void PolicyBase::Limit(const Call& call, const Request& request, relay::SendOptions* leg) {
  leg->first_byte_timeout = request.timeouts->first_byte;
  leg->gap_timeout = request.timeouts->gap;
  leg->deadline = request.timeouts->DeadlineOf(call.received());
}

void PolicyBase::SendKept(Call& call, const Request& request) {
  edits_.clear();
  edits_.push_back({"x-request-id", request.id});
  AddAnswerEdits(request, edits_);
  request.kept.Send(call, edits_);
}

bool PolicyBase::Betters(Call& call, Request& request, const http::ResponseView& head) {
  const Verdict verdict = Judge(head);
  if (verdict.failure) {
    Blame(request, *verdict.failure, "the sidecar's engine failed");
  }
  request.passed = !verdict.failure;
  if (!verdict.elsewhere) return false;
  if (verdict.failure) {
    request.tries.OnFailed(*verdict.failure);
  } else {
    request.tries.OnReached();
  }
  if (request.tries.Exhausted(parts_.tries) || !KeptAnswer::Fits(head)) return false;
  request.set_aside = verdict;
  call.Collect(KeptAnswer::kMaxBytes);
  return true;
}

std::string_view PolicyBase::OnCut(Call& call, relay::Failure failure, std::string_view what) {
  Request& request = Of(call);
  observer_.Cut(request.record, failure, what);
  if (failure == relay::Failure::kDeadline) {
    static const std::string kLate = http::ErrorBody(504, kTimeIsOver);
    static const std::string kLateAnthropic = http::AnthropicErrorBody(504, kTimeIsOver);
    return request.anthropic ? kLateAnthropic : kLate;
  }
  parts_.metrics.upstream_cut.Add();
  relay::Target target;
  const Key key = Answering(request, &target);
  if (Counts(request, failure)) parts_.health.Failed(key, target, failure);
  parts_.logger.Warn(
      "engine broke off its answer",
      {{"x-request-id", LoggedId(request)}, {"endpoint", request.endpoint}, {"error", what}});
  static const std::string kAnthropic =
      http::AnthropicErrorBody(502, "the model server broke off its answer");
  return request.anthropic ? kAnthropic : Policy::OnCut(call, failure, what);
}

void PolicyBase::OnEnd(Call& call, const relay::Outcome& outcome) {
  Request& request = Of(call);
  if (request.probe != 0 || !request.models_of.name.empty()) return Give(request);
  parts_.metrics.inflight.Add(-1);
  if (outcome.client_gone) parts_.metrics.client_gone.Add();
  observer_.End(request.record, outcome, LoggedId(request), request.method, request.path);
  if (relay::Target target; request.passed && outcome.whole)
    parts_.health.Succeeded(Answering(request, &target));
  LeaveDoors(request, call.now());
  const bool over = Ended(call, request, outcome);
  if (request.reading) {
    request.left = true;
    call.Retain();
  } else if (over) {
    Give(request);
  }
}

// Endpoints that are out are asked for their health before requests go there again.
void PolicyBase::OnTick() {
  observer_.HandOver();
  if (loop_.index() != 0) return;
  for (const relay::UpstreamHealth::Probe& due : parts_.health.TakeDue()) Probe(due);
  RefreshModels();
  parts_.health.SetMembers(parts_.models.engine_count());
}

void PolicyBase::Probe(const relay::UpstreamHealth::Probe& due) {
  Request& request = Take();
  request.probe = due.key;
  request.models_of.name.clear();
  Call& call = loop_.Open();
  call.context = &request;
  const std::array<HeaderEdit, 1> headers = {HeaderEdit{"user-agent", "llmd-gateway"}};
  call.Send(OwnGet(due.target, "/health", headers, kProbeBytes, kProbeTimeout));
}

void PolicyBase::RefreshModels() {
  parts_.models.Refresh(loop_, parts_.workers,
                        [this](const doors::EngineName& engine) { AskForModels(engine); });
}

void PolicyBase::AskForModels(const doors::EngineName& engine) {
  const auto target = relay::Target::Parse(engine.name);
  if (!target.ok()) return parts_.models.Failed(engine, target.status().message(), loop_.now());
  Request& request = Take();
  request.probe = 0;
  request.models_of = engine;
  Call& call = loop_.Open();
  call.context = &request;
  const std::shared_ptr<const std::string> key = parts_.doors.engine_key();
  const std::array<HeaderEdit, 2> headers = {
      HeaderEdit{"user-agent", "llmd-gateway"},
      HeaderEdit{"authorization", key ? std::string_view(*key) : std::string_view()}};
  call.Send(OwnGet(*target, "/v1/models", std::span(headers).first(key ? 2 : 1),
                   doors::kMaxModelPageBytes, kModelsTimeout));
}

void PolicyBase::OnCollected(Call& call, const http::ResponseView& head, std::string_view body) {
  Request& request = Of(call);
  if (request.probe != 0) {
    parts_.health.Probed(request.probe, head.status < 500);
  } else if (!request.models_of.name.empty()) {
    parts_.models.Learned(request.models_of, head.status, body, parts_.workers, call.now());
  } else {
    observer_.Collected(request.record, head.status);
    request.kept.Keep(head, body);
    return SetAside(call, request);
  }
  call.Abort();
}

}  // namespace llmd::gateway
