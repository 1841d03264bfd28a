#include "gateway/director_policy.h"

#include <algorithm>
#include <array>

#include "gateway/picker_headers.h"
#include "llmd/http/error_body.h"
#include "llmd/uuid.h"

namespace llmd::gateway {
namespace {

using relay::Call;
using relay::HeaderEdit;

constexpr size_t kLoggedIdBytes = 128;
constexpr size_t kProbeBytes = 64 * 1024;
constexpr Duration kProbeTimeout = std::chrono::seconds(2);

sched::EndpointId IdOf(uint64_t key) {
  return static_cast<sched::EndpointId>(key);
}

}  // namespace

DirectorPolicy::DirectorPolicy(GatewayParts& parts, relay::Loop& loop)
    : parts_(parts), loop_(loop), ejected_(parts.health.Ejected()) {}

DirectorPolicy::~DirectorPolicy() = default;

void DirectorPolicy::Request::Clear() {
  routing.Clear();
  state.reset();
  deciding = abandoned = panic = routed = answering = proxied = false;
  target_model.clear();
  failed.clear();
  exclude.clear();
  next = 0;
  sent = 0;
  endpoint = {};
  endpoint_name.clear();
  failure_text.clear();
  edits.clear();
  body.clear();
  probe = 0;
  page = nullptr;
}

DirectorPolicy::Request& DirectorPolicy::Take(Call& call) {
  if (free_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    requests_.back()->owner = this;
    free_.push_back(requests_.back().get());
  }
  Request& request = *free_.back();
  free_.pop_back();
  call.context = &request;
  return request;
}

void DirectorPolicy::Give(Request& request) {
  request.Clear();
  free_.push_back(&request);
}

// What is needed of the head once it has gone.
void DirectorPolicy::Name(Call& call, Request& request) {
  const http::RequestView& head = call.request();
  request.method.assign(head.method);
  request.path.assign(head.path());
  request.id.assign(head.headers.Get(http::Known::kXRequestId).value_or(""));
  if (request.id.empty()) request.id = NewUuid();
}

void DirectorPolicy::OnHead(Call& call) {
  Request& request = Take(call);
  Name(call, request);
  parts_.metrics.inflight.Add(1);
  const Routes::Verdict verdict = parts_.routes.Of(call.request());
  switch (verdict.kind) {
    case Routes::Verdict::Kind::kForward:
      request.proxied = true;
      return;
    case Routes::Verdict::Kind::kLocal:
      request.proxied = !AnswerHere(call, *verdict.page);
      return;
    case Routes::Verdict::Kind::kRefuse:
      return Answer(call, verdict.status, verdict.message, verdict.allow);
  }
}

void DirectorPolicy::OnRefused(Call& call, const relay::Refusal& refusal) {
  if (call.context == nullptr) {
    Name(call, Take(call));
    parts_.metrics.inflight.Add(1);
  }
  Answer(call, refusal.status, refusal.message);
}

// False when the page leaves the request to a model server. One that takes a while to write waits
// for OnRequest.
bool DirectorPolicy::AnswerHere(Call& call, const LocalPage& page) {
  if (page.slow) {
    Of(call).page = &page;
    return true;
  }
  const std::optional<http::Response> response = page.make(call.request().query());
  if (response) AnswerWith(call, *response);
  return response.has_value();
}

// Written on another thread.
void DirectorPolicy::AnswerLater(Call& call, const LocalPage& page) {
  const std::string query(call.request().query());
  const Status queued = parts_.workers.Submit([this, ref = call.ref(), &page, query] {
    auto made = std::make_shared<const std::optional<http::Response>>(page.make(query));
    (void)ref.Post([this, made](Call& asked) { AnswerWith(asked, made->value()); });
  });
  if (!queued.ok()) Answer(call, 503, queued.message());
}

void DirectorPolicy::AnswerWith(Call& call, const http::Response& response) {
  std::vector<HeaderEdit> headers;
  for (const auto& [name, value] : response.head.headers.lines()) headers.push_back({name, value});
  headers.push_back({"x-request-id", Of(call).id});
  call.Answer(response.head.status, headers, response.body);
}

void DirectorPolicy::Answer(Call& call, int status, std::string_view message,
                            std::string_view allow) {
  const std::string body = status == 204 ? "" : http::ErrorBody(status, message);
  std::array<HeaderEdit, 3> headers;
  size_t count = 0;
  if (!body.empty()) headers[count++] = {"content-type", "application/json"};
  if (!allow.empty()) headers[count++] = {"allow", allow};
  headers[count++] = {"x-request-id", Of(call).id};
  call.Answer(status, {headers.data(), count}, body);
}

void DirectorPolicy::OnRequest(Call& call) {
  Request& request = Of(call);
  if (request.page != nullptr) return AnswerLater(call, *request.page);
  FillPickerHeaders(call.request(), call.tls(), request.id, request.headers);
  request.asked = call.now();
  Decide(call, request);
}

void DirectorPolicy::OnResponseHead(Call& call, const http::ResponseView& head) {
  Request& request = Of(call);
  parts_.health.Succeeded(static_cast<Key>(request.endpoint));
  parts_.director.OnServed(request.routing.state, request.endpoint_name);
  FillAnswerHeaders(head.headers, request.answer_headers);
  const sched::HeaderList set =
      parts_.director.OnResponseHeaders(request.routing.state, head.status, request.answer_headers);
  request.edits.clear();
  for (const auto& [name, value] : set) {
    // It tells a proxy that its picker saw the answer; here they are one.
    if (name != "x-went-into-resp-headers") request.edits.push_back({name, value});
  }
  request.edits.push_back({"x-request-id", request.id});
  request.answering = true;
  if (request.routing.skip_response) {
    parts_.director.OnResponseBodySkipped(request.routing.state);
    return call.Forward(request.edits, relay::BodyMode::kPass);
  }
  call.Forward(request.edits,
               request.routing.edits_response ? relay::BodyMode::kEdit : relay::BodyMode::kWatch);
}

relay::Piece DirectorPolicy::OnResponseBytes(Call& call, std::string_view piece, bool end) {
  Request& request = Of(call);
  if (end) request.routed = false;
  const bool changed =
      parts_.director.OnResponseBody(request.routing.state, piece, end, &request.replaced);
  return {changed ? std::string_view(request.replaced) : piece};
}

std::string_view DirectorPolicy::OnCut(Call& call, relay::Failure failure, std::string_view what) {
  Request& request = Of(call);
  parts_.metrics.upstream_cut.Add();
  parts_.health.Failed(static_cast<Key>(request.endpoint), request.target, failure);
  parts_.logger.Warn("engine broke off its answer",
                     {{"x-request-id", request.id.substr(0, kLoggedIdBytes)},
                      {"endpoint", request.endpoint_name},
                      {"error", what}});
  return Policy::OnCut(call, failure, what);
}

void DirectorPolicy::OnEnd(Call& call, const relay::Outcome& outcome) {
  Request& request = Of(call);
  if (request.probe != 0) return Give(request);
  if (request.answering && outcome.whole && request.routed && request.routing.skip_response) {
    parts_.director.OnResponseBody(request.routing.state, {}, true, &request.replaced);
    request.routed = false;
  }
  parts_.metrics.inflight.Add(-1);
  if (outcome.client_gone) parts_.metrics.client_gone.Add();
  const Duration first =
      outcome.head_sent == TimePoint() ? Duration::zero() : outcome.head_sent - outcome.received;
  parts_.metrics.Request(outcome.status, outcome.ended - outcome.received, first);
  Log(request, outcome);
  if (request.deciding) {
    // The Director reads the request until it has answered.
    request.abandoned = true;
    call.Retain();
    if (request.state) parts_.director.Cancel(request.state);
    return;
  }
  EndRouting(request);
  Give(request);
}

void DirectorPolicy::Log(const Request& request, const relay::Outcome& outcome) {
  if (!parts_.options.access_log || !parts_.logger.Enabled(LogLevel::kInfo)) return;
  const double seconds = std::chrono::duration<double>(outcome.ended - outcome.received).count();
  parts_.logger.Info("request", {{"x-request-id", request.id.substr(0, kLoggedIdBytes)},
                                 {"method", request.method},
                                 {"path", request.path},
                                 {"status", outcome.status},
                                 {"endpoint", request.endpoint_name},
                                 {"seconds", seconds},
                                 {"bytes", static_cast<int64_t>(outcome.body_bytes)},
                                 {"clientGone", outcome.client_gone}});
}

// Endpoints that are out are asked for their health before requests go there again.
void DirectorPolicy::OnTick() {
  if (loop_.index() != 0) return;
  for (const relay::UpstreamHealth::Probe& due : parts_.health.TakeDue()) {
    Call& call = loop_.Open();
    Take(call).probe = due.key;
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

void DirectorPolicy::OnCollected(Call& call, const http::ResponseView& head, std::string_view) {
  parts_.health.Probed(Of(call).probe, head.status < 500);
  call.Abort();
}

const relay::Target* DirectorPolicy::TargetOf(sched::EndpointId id, std::string_view address) {
  constexpr size_t kMaxKnown = 8192;  // endpoints come and go
  if (targets_.size() > kMaxKnown) targets_.clear();
  Known& known = targets_[static_cast<uint64_t>(id)];
  if (known.address != address) {
    auto parsed = relay::Target::Parse(address);
    known.address.assign(address);
    known.target = parsed.ok() ? *parsed : relay::Target();
  }
  return known.target.valid() ? &known.target : nullptr;
}

const std::vector<DirectorPolicy::Key>& DirectorPolicy::Ejected() {
  if (const uint64_t version = parts_.health.version(); version != ejected_version_) {
    ejected_version_ = version;
    ejected_ = parts_.health.Ejected();
  }
  return *ejected_;
}

bool DirectorPolicy::IsEjected(sched::EndpointId id) {
  const std::vector<Key>& out = Ejected();
  return std::binary_search(out.begin(), out.end(), static_cast<Key>(id));
}

// Whom not to ask: those it failed at, and those that are out.
void DirectorPolicy::Exclude(Request& request) {
  request.exclude = request.failed;
  if (request.panic) return;
  for (const Key key : Ejected()) {
    if (std::find(request.failed.begin(), request.failed.end(), IdOf(key)) == request.failed.end())
      request.exclude.push_back(IdOf(key));
  }
}

}  // namespace llmd::gateway
