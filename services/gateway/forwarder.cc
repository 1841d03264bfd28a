#include "gateway/forwarder.h"

#include <algorithm>

#include "llmd/http/error_body.h"
#include "llmd/http/proxy.h"
#include "llmd/http/routing_headers.h"
#include "llmd/http/sse.h"
#include "llmd/uuid.h"

namespace llmd::gateway {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c + 32) : c;
  return out;
}

bool Contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

HeaderList ToList(const http::Headers& headers) {
  HeaderList out;
  for (const auto& [name, value] : headers.lines()) out.emplace_back(Lower(name), value);
  return out;
}

bool HasBody(const http::RequestHead& head) {
  const auto length = head.headers.Get("content-length");
  return head.headers.Has("transfer-encoding") || (length && *length != "0") ||
         head.method == "POST";
}

bool IsSse(const http::ResponseHead& head) {
  return head.headers.Get("content-type").value_or("").find("text/event-stream") !=
         std::string_view::npos;
}

// What is there cannot serve the request; perhaps what was to be avoided can.
bool NoneLeft(const sched::Routing& routing) {
  return !routing.ok && routing.denial.http_status == 503 &&
         routing.denial.dropped_reason == "rejected-no-endpoints";
}

}  // namespace

HeaderList PickerHeaders(const http::RequestHead& head) {
  HeaderList out;
  out.emplace_back(":method", head.method);
  out.emplace_back(":path", head.target);
  out.emplace_back(":scheme", "http");
  out.emplace_back(":authority", std::string(head.headers.Get("host").value_or("")));
  for (const auto& [name, value] : head.headers.lines()) {
    std::string lower = Lower(name);
    if (lower != "host" && !http::IsRoutingHeader(lower)) out.emplace_back(std::move(lower), value);
  }
  return out;
}

void Ejections::Add(const std::string& endpoint) {
  std::lock_guard lock(mutex_);
  until_[endpoint] = clock_.Now() + time_;
}

void Ejections::Clear(const std::string& endpoint) {
  std::lock_guard lock(mutex_);
  until_.erase(endpoint);
}

std::vector<std::string> Ejections::Current() {
  std::lock_guard lock(mutex_);
  const TimePoint now = clock_.Now();
  std::erase_if(until_, [now](const auto& entry) { return entry.second <= now; });
  std::vector<std::string> out;
  out.reserve(until_.size());
  for (const auto& [endpoint, until] : until_) out.push_back(endpoint);
  return out;
}

// One exchange on its way.
struct Forwarder::Request {
  std::string id;
  http::RequestHead head;  // to be sent upstream
  HeaderList picker_headers;
  std::shared_ptr<const std::string> body;
  bool has_body = false;
  TimePoint started, asked;         // asked = when the picker was first
  std::string target_model;         // that the first try was sent for
  std::vector<std::string> failed;  // endpoints tried in vain
  std::unique_ptr<Pick> pick;
  std::string endpoint;
  std::unique_ptr<http::ResponseStream> upstream;
  Status last_error;
  int status = 0;
  Duration first_byte{};
};

Forwarder::Forwarder(Picker& picker, http::Client& client, ForwarderOptions options, Logger logger,
                     MetricsRegistry& metrics, const Clock& clock)
    : picker_(picker),
      client_(client),
      options_(options),
      logger_(std::move(logger)),
      clock_(clock),
      ejections_(options.ejection, clock),
      metrics_(metrics) {}

http::Task<void> Forwarder::Handle(http::Exchange& exchange) {
  Request request;
  request.started = clock_.Now();
  request.has_body = HasBody(exchange.request());
  metrics_.inflight.Add(1);
  if (request.has_body) {
    auto body = co_await exchange.ReadAll();
    if (!body.ok()) {
      metrics_.inflight.Add(-1);
      co_return;
    }
    request.body = std::make_shared<const std::string>(std::move(*body));
  } else {
    request.body = std::make_shared<const std::string>();
  }
  request.head = http::ForwardHead(exchange);
  for (std::string_view name : http::kRoutingHeaders) request.head.headers.Remove(name);
  request.id = std::string(request.head.headers.Get("x-request-id").value_or(""));
  if (request.id.empty()) request.id = NewUuid();
  request.head.headers.Set("x-request-id", request.id);
  request.picker_headers = PickerHeaders(request.head);
  co_await Route(exchange, request);
  Finish(exchange, request);
}

http::Task<void> Forwarder::Route(http::Exchange& exchange, Request& request) {
  request.last_error = Unavailable("no endpoint was tried");
  request.asked = clock_.Now();
  for (int attempt = 0; attempt < options_.max_attempts && !exchange.client_gone(); ++attempt) {
    if (attempt > 0) metrics_.retries.Add();
    const bool done = co_await TryOnce(exchange, request);
    if (done) co_return;
    request.pick.reset();  // while it counts it may be what keeps the next try waiting
  }
  if (exchange.client_gone()) co_return;
  const bool late = request.last_error.code() == StatusCode::kDeadlineExceeded;
  co_await SendError(exchange, request, late ? 504 : 503,
                     "no model server answered: " + request.last_error.message());
}

// Asks the picker and tries its endpoints. True when an answer (or a refusal) went to the client.
http::Task<bool> Forwarder::TryOnce(http::Exchange& exchange, Request& request) {
  std::vector<std::string> ejected = ejections_.Current();
  std::erase_if(ejected, [&](const auto& endpoint) { return Contains(request.failed, endpoint); });
  auto pick = co_await Choose(exchange, request, ejected);
  if (pick.ok() && !ejected.empty() && NoneLeft((*pick)->routing())) {
    std::vector<std::string> none;
    pick = co_await Choose(exchange, request, std::move(none));
  }
  if (!pick.ok()) {
    if (pick.status().code() == StatusCode::kCancelled) co_return true;
    co_await SendError(exchange, request, 503, pick.status().message());
    co_return true;
  }
  request.pick = std::move(*pick);
  const sched::Routing& routing = request.pick->routing();
  if (!routing.ok) {
    if (!request.failed.empty())
      co_return false;  // what is left cannot serve it; the failure is the better answer
    co_await Deny(exchange, request, routing.denial);
    co_return true;
  }
  if (request.target_model.empty()) request.target_model = routing.target_model;
  for (const std::string& endpoint : routing.endpoints) {
    if (Contains(request.failed, endpoint)) continue;
    request.endpoint = endpoint;
    if (Contains(ejected, endpoint)) metrics_.panics.Add();
    request.last_error = co_await Connect(exchange, request);
    if (request.last_error.ok()) {
      ejections_.Clear(endpoint);
      request.pick->OnServed(endpoint);
      co_await RelayAnswer(exchange, request);
      co_return true;
    }
    if (exchange.client_gone()) co_return true;
    if (const sched::Denial* denial = request.pick->evicted()) {
      co_await Deny(exchange, request, *denial);
      co_return true;
    }
    NoteFailure(request, endpoint);
  }
  co_return false;
}

http::Task<StatusOr<std::unique_ptr<Pick>>> Forwarder::Choose(http::Exchange& exchange,
                                                              Request& request,
                                                              std::vector<std::string> avoid) {
  PickInput input;
  input.headers = request.picker_headers;
  input.body = request.body;
  input.has_body = request.has_body;
  input.exclude = request.failed;
  input.avoid = std::move(avoid);
  input.received = request.asked;
  input.target_model = request.target_model;
  co_return co_await picker_.Choose(exchange, std::move(input));
}

void Forwarder::NoteFailure(Request& request, const std::string& endpoint) {
  request.failed.push_back(endpoint);
  const bool ours = request.last_error.code() == StatusCode::kResourceExhausted;
  if (!ours) ejections_.Add(endpoint);
  logger_.Warn(ours ? "no connection can be made here" : "endpoint failed before its first byte",
               {{"x-request-id", request.id},
                {"endpoint", endpoint},
                {"error", request.last_error.message()}});
}

http::Task<Status> Forwarder::Connect(http::Exchange& exchange, Request& request) {
  auto peer = http::ParseHostPort(request.endpoint);
  if (!peer.ok()) co_return peer.status();
  http::RequestHead head = request.head;
  for (const auto& [name, value] : request.pick->routing().set_headers)
    head.headers.Set(name, value);
  for (const std::string& name : request.pick->routing().remove_headers) {
    const auto& set = request.pick->routing().set_headers;
    const bool ours =
        std::any_of(set.begin(), set.end(), [&](const auto& line) { return line.first == name; });
    if (!ours) head.headers.Remove(name);
  }
  head.headers.Remove("transfer-encoding");
  head.headers.Remove("expect");
  const std::string_view body = request.pick->body();
  head.headers.Remove("content-length");
  if (request.has_body) head.headers.Set("content-length", std::to_string(body.size()));
  http::CallOptions options;
  options.first_byte_timeout = options_.first_byte_timeout;
  options.read_timeout = options_.read_timeout;
  http::Cancellation cancel;
  exchange.OnClientGone([&cancel] { cancel.Cancel(); });
  request.pick->OnEvicted([&cancel] { cancel.Cancel(); });
  auto upstream = co_await client_.Call(*peer, std::move(head), body, options, &cancel);
  exchange.OnClientGone(nullptr);
  request.pick->OnEvicted(nullptr);
  if (!upstream.ok()) co_return upstream.status();
  request.upstream = std::move(*upstream);
  co_return OkStatus();
}

http::Task<void> Forwarder::RelayAnswer(http::Exchange& exchange, Request& request) {
  http::ResponseStream& upstream = *request.upstream;
  http::ResponseHead head = upstream.head();
  request.status = head.status;
  request.first_byte = clock_.Now() - request.started;
  const bool sse = IsSse(head);
  const HeaderList seen = ToList(head.headers);
  const HeaderList set = co_await request.pick->OnResponseHeaders(head.status, seen);
  http::StripHopByHop(head.headers);
  for (const auto& [name, value] : set) head.headers.Set(name, value);
  head.headers.Set("x-request-id", request.id);
  head.headers.Remove(
      "content-length");  // names may be restored in the body; the answer is chunked
  exchange.OnClientGone([&upstream] { upstream.Cancel(); });
  request.pick->OnEvicted([&upstream] { upstream.Cancel(); });
  Status sent = co_await exchange.Start(std::move(head));
  while (sent.ok()) {
    auto chunk = co_await upstream.Read();
    if (!chunk.ok()) {
      if (exchange.client_gone()) break;
      if (request.pick->evicted() == nullptr) {
        metrics_.upstream_cut.Add();
        logger_.Warn("engine broke off its answer", {{"x-request-id", request.id},
                                                     {"endpoint", request.endpoint},
                                                     {"error", chunk.status().message()}});
      }
      co_await BreakOff(exchange, request, sse);
      break;
    }
    const bool end = chunk->empty();
    const std::string_view out = co_await request.pick->OnResponseBody(*chunk, end);
    if (request.pick->evicted() != nullptr) {
      co_await BreakOff(exchange, request, sse);
      break;
    }
    if (!out.empty()) sent = co_await exchange.Write(out);
    if (end) {
      if (sent.ok()) sent = co_await exchange.Finish();
      break;
    }
  }
  exchange.OnClientGone(nullptr);
  request.pick.reset();
  request.upstream.reset();
}

// Ends an answer that has begun: a stream with an error event, any other by cutting it.
http::Task<void> Forwarder::BreakOff(http::Exchange& exchange, Request& request, bool sse) {
  const sched::Denial* const denial = request.pick->evicted();
  if (denial != nullptr) {
    logger_.Warn("flow control took the request back",
                 {{"x-request-id", request.id}, {"droppedReason", denial->dropped_reason}});
  }
  if (!sse) {
    exchange.Abort();
    co_return;
  }
  const std::string event = http::SseFrame(
      denial != nullptr ? http::ErrorBody(denial->http_status, denial->message)
                        : http::ErrorBody(502, "the model server broke off its answer"));
  (void)co_await exchange.Write(event);
  (void)co_await exchange.Finish();
}

http::Task<void> Forwarder::SendError(http::Exchange& exchange, Request& request, int status,
                                      std::string message) {
  request.status = status;
  http::Response response = http::JsonResponse(status, http::ErrorBody(status, message));
  response.head.headers.Set("x-request-id", request.id);
  (void)co_await exchange.Send(std::move(response));
}

http::Task<void> Forwarder::Deny(http::Exchange& exchange, Request& request,
                                 const sched::Denial& denial) {
  request.status = denial.http_status;
  http::Response response =
      http::JsonResponse(denial.http_status, http::ErrorBody(denial.http_status, denial.message));
  response.head.headers.Set("x-request-id", request.id);
  if (!denial.dropped_reason.empty())
    response.head.headers.Set("x-llm-d-request-dropped-reason", denial.dropped_reason);
  if (denial.retry_after_s > 0)
    response.head.headers.Set("retry-after", std::to_string(denial.retry_after_s));
  for (const auto& [name, value] : denial.headers) response.head.headers.Set(name, value);
  (void)co_await exchange.Send(std::move(response));
}

void Forwarder::Finish(const http::Exchange& exchange, const Request& request) {
  const Duration whole = clock_.Now() - request.started;
  const double seconds = std::chrono::duration<double>(whole).count();
  metrics_.inflight.Add(-1);
  if (exchange.client_gone()) metrics_.client_gone.Add();
  metrics_.Request(request.status, whole, request.first_byte);
  logger_.Info("request", {{"x-request-id", request.id},
                           {"method", exchange.request().method},
                           {"path", exchange.request().path()},
                           {"status", request.status},
                           {"endpoint", request.endpoint},
                           {"seconds", seconds},
                           {"clientGone", exchange.client_gone()}});
}

}  // namespace llmd::gateway
