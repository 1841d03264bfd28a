#include "gateway/policy_base.h"

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "llmd/http/error_body.h"
#include "llmd/uuid.h"

namespace llmd::gateway {
namespace {

using relay::Call;
using relay::HeaderEdit;

constexpr size_t kLoggedIdBytes = 128;
constexpr size_t kProbeBytes = 64 * 1024;
constexpr Duration kProbeTimeout = std::chrono::seconds(2);

// Its clients expect errors in Anthropic's form.
bool IsAnthropic(std::string_view path) {
  constexpr std::string_view kMessages = "/v1/messages";
  return path.starts_with(kMessages) &&
         (path.size() == kMessages.size() || path[kMessages.size()] == '/');
}

}  // namespace

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
  request.page = nullptr;
  request.probe = 0;
  request.anthropic = IsAnthropic(request.path);
  if (request.anthropic) call.error_event = "error";
  request.timeouts = &parts_.timeouts.Of(request.path);
  request.tries.Reset();
  request.kept.Clear();
  observer_.Begin(request.record, call);
  parts_.metrics.inflight.Add(1);
  return request;
}

void PolicyBase::OnHead(Call& call) {
  Begin(call);
  const Routes::Verdict verdict = parts_.routes.Of(call.request());
  switch (verdict.kind) {
    case Routes::Verdict::Kind::kForward:
      return;
    case Routes::Verdict::Kind::kLocal:
      return void(AnswerHere(call, *verdict.page));
    case Routes::Verdict::Kind::kRefuse:
      return Answer(call, verdict.status, verdict.message, verdict.allow);
  }
}

void PolicyBase::OnRequest(Call& call) {
  Request& request = Of(call);
  observer_.Whole(request.record, call);
  if (request.page != nullptr) return AnswerLater(call, *request.page);
  Serve(call, request);
}

void PolicyBase::OnRefused(Call& call, const relay::Refusal& refusal) {
  if (call.context == nullptr) Begin(call);
  observer_.Refused(Of(call).record, refusal);
  Answer(call, refusal.status, refusal.message);
}

// False when the page leaves the request to a model server. One that takes a while to write waits
// for OnRequest.
bool PolicyBase::AnswerHere(Call& call, const LocalPage& page) {
  if (page.slow) {
    Of(call).page = &page;
    return true;
  }
  const std::optional<http::Response> response = page.make(call.request().query());
  if (response) AnswerWith(call, *response);
  return response.has_value();
}

// Written on another thread.
void PolicyBase::AnswerLater(Call& call, const LocalPage& page) {
  const std::string query(call.request().query());
  const Status queued = parts_.workers.Submit([this, ref = call.ref(), &page, query] {
    auto made = std::make_shared<const std::optional<http::Response>>(page.make(query));
    (void)ref.Post([this, made](Call& asked) { AnswerWith(asked, made->value()); });
  });
  if (!queued.ok()) Answer(call, 503, queued.message());
}

void PolicyBase::AnswerWith(Call& call, const http::Response& response) {
  std::vector<HeaderEdit> headers;
  for (const auto& [name, value] : response.head.headers.lines()) headers.push_back({name, value});
  headers.push_back({"x-request-id", Of(call).id});
  call.Answer(response.head.status, headers, response.body);
}

std::string PolicyBase::ErrorOf(const Request& request, int status, std::string_view message) {
  return request.anthropic ? http::AnthropicErrorBody(status, message)
                           : http::ErrorBody(status, message);
}

void PolicyBase::Answer(Call& call, int status, std::string_view message, std::string_view allow) {
  const std::string body = status == 204 ? "" : ErrorOf(Of(call), status, message);
  std::array<HeaderEdit, 3> headers;
  size_t count = 0;
  if (!body.empty()) headers[count++] = {"content-type", "application/json"};
  if (!allow.empty()) headers[count++] = {"allow", allow};
  headers[count++] = {"x-request-id", Of(call).id};
  call.Answer(status, {headers.data(), count}, body);
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
  Blame(request, failure, what);
  LegFailed(call, request, failure, what);
}

void PolicyBase::Blame(Request& request, relay::Failure failure, std::string_view what, bool sure) {
  observer_.Failed(request.record, failure, what);
  relay::Target target;
  const Key key = Answering(request, &target);
  const bool ejected =
      sure ? parts_.health.Lost(key, target) : parts_.health.Failed(key, target, failure);
  const bool ours = failure == relay::Failure::kOurs;
  parts_.logger.Warn(ours ? "no connection can be made here" : "endpoint failed before its answer",
                     {{"x-request-id", LoggedId(request)},
                      {"endpoint", request.endpoint},
                      {"kind", relay::NameOf(failure)},
                      {"error", what},
                      {"ejected", ejected}});
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

bool PolicyBase::Betters(Call& call, Request& request, const http::ResponseView& head) {
  const Verdict verdict = Judge(head);
  if (verdict.failure) {
    Blame(request, *verdict.failure, "the sidecar's engine failed");
  } else {
    relay::Target target;
    parts_.health.Succeeded(Answering(request, &target));
  }
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
  parts_.health.Failed(key, target, failure);
  parts_.logger.Warn(
      "engine broke off its answer",
      {{"x-request-id", LoggedId(request)}, {"endpoint", request.endpoint}, {"error", what}});
  static const std::string kAnthropic =
      http::AnthropicErrorBody(502, "the model server broke off its answer");
  return request.anthropic ? kAnthropic : Policy::OnCut(call, failure, what);
}

void PolicyBase::OnEnd(Call& call, const relay::Outcome& outcome) {
  Request& request = Of(call);
  if (request.probe != 0) return Give(request);
  parts_.metrics.inflight.Add(-1);
  if (outcome.client_gone) parts_.metrics.client_gone.Add();
  observer_.End(request.record, outcome, LoggedId(request), request.method, request.path);
  if (Ended(call, request, outcome)) Give(request);
}

// Endpoints that are out are asked for their health before requests go there again.
void PolicyBase::OnTick() {
  observer_.HandOver();
  if (loop_.index() != 0) return;
  for (const relay::UpstreamHealth::Probe& due : parts_.health.TakeDue()) {
    Request& request = Take();
    request.probe = due.key;
    Call& call = loop_.Open();
    call.context = &request;
    const std::array<HeaderEdit, 1> headers = {HeaderEdit{"user-agent", "llmd-gateway"}};
    relay::SendOptions options;
    options.target = due.target;
    options.method = "GET";
    options.path = "/health";
    options.own_headers = options.own_body = true;
    options.headers = headers;
    options.collect_bytes = kProbeBytes;
    options.connect_timeout = options.first_byte_timeout = options.gap_timeout = kProbeTimeout;
    call.Send(options);
  }
}

void PolicyBase::OnCollected(Call& call, const http::ResponseView& head, std::string_view body) {
  Request& request = Of(call);
  if (request.probe == 0) {
    observer_.Collected(request.record, head.status);
    request.kept.Keep(head, body);
    return SetAside(call, request);
  }
  parts_.health.Probed(request.probe, head.status < 500);
  call.Abort();
}

}  // namespace llmd::gateway
