#include "sidecar/proxy.h"

#include <algorithm>
#include <chrono>

#include "llmd/http/proxy.h"
#include "llmd/pd/object_edit.h"
#include "llmd/pd/usage_rewriter.h"
#include "llmd/uuid.h"

namespace llmd::sidecar {
namespace {

constexpr size_t kMaxPrefillReplyBytes = 64 << 20;
// Between router and sidecar only: no engine may see them.
constexpr const char* kRoutingHeaders[] = {"x-prefiller-host-port", "x-prefiller-url",
                                           "x-encoder-hosts-ports", "x-kv-cache-source-host-port",
                                           "x-data-parallel-host-port"};

TimePoint Now() {
  return SystemClock().Now();
}

bool IsSuccess(int status) {
  return status >= 200 && status < 300;
}

// The outcome label of a leg that got no answer.
std::string_view Outcome(const Status& status) {
  if (status.code() == StatusCode::kDeadlineExceeded) return "timeout";
  if (status.code() == StatusCode::kCancelled) return "cancelled";
  return status.message().starts_with("connect") ? "refused" : "reset";
}

std::string_view Outcome(int http_status) {
  if (IsSuccess(http_status)) return "ok";
  return http_status >= 500 ? "http_5xx" : http_status >= 400 ? "http_4xx" : "http_other";
}

http::Response ErrorResponse(int status, std::string_view type, std::string_view message) {
  return http::JsonResponse(status, pd::ErrorBody(status, type, message));
}

// For the log; each by itself, as what stands beside it need not be readable.
json::Value MemberOf(const pd::PrefillReply& reply, std::string_view key) {
  const auto params = pd::ObjectEdit::Parse(reply.kv_transfer_params);
  if (!params.ok() || !params->Has(key)) return {};
  return json::Parse(params->Get(key)).value_or(json::Value());
}

http::CallOptions LegOptions(Duration timeout) {
  http::CallOptions options;
  options.first_byte_timeout = timeout;
  options.read_timeout = timeout;
  return options;
}

// Cancels a leg as soon as the client leaves.
class CancelOnGone {
 public:
  CancelOnGone(http::Exchange& exchange, http::Cancellation& cancel) : exchange_(exchange) {
    exchange_.OnClientGone([&cancel] { cancel.Cancel(); });
  }
  ~CancelOnGone() { exchange_.OnClientGone(nullptr); }
  CancelOnGone(const CancelOnGone&) = delete;
  CancelOnGone& operator=(const CancelOnGone&) = delete;

 private:
  http::Exchange& exchange_;
};

// Bodies are written at trace level only.
Logger WithBody(const Logger& logger, const std::string& body) {
  return logger.Enabled(LogLevel::kTrace) ? logger.With("body", body) : logger;
}

// Which rewriting the engine's answer needs, if any.
std::optional<pd::UsageRewriter::Kind> RewriteKind(const http::ResponseHead& head) {
  if (!IsSuccess(head.status) || head.headers.Has("Content-Encoding")) return std::nullopt;
  const std::string_view type = head.headers.Get("Content-Type").value_or("");
  if (type.starts_with("application/json")) return pd::UsageRewriter::Kind::kJson;
  if (type.starts_with("text/event-stream")) return pd::UsageRewriter::Kind::kSse;
  return std::nullopt;
}

}  // namespace

Proxy::Proxy(http::Client& prefiller, http::Client& decoder, const Options& options,
             SidecarMetrics& metrics, ReleaseFn release, Logger logger)
    : prefiller_(prefiller),
      decoder_(decoder),
      options_(options),
      metrics_(metrics),
      release_(std::move(release)),
      logger_(std::move(logger)),
      engine_{options.model_server_host, options.model_server_port} {}

http::Task<void> Proxy::Handle(http::Exchange& exchange) {
  const http::RequestHead& request = exchange.request();
  const auto api = request.method == "POST" ? pd::ApiOfPath(request.path()) : std::nullopt;
  if (api) {
    co_await Generate(exchange, *api);
  } else if (request.method == "GET" && request.path() == "/health") {
    http::Response ok;
    (void)co_await exchange.Send(std::move(ok));
  } else if (request.method == "GET" && request.path() == "/ready") {
    co_await Ready(exchange);
  } else {
    co_await PassThrough(exchange);
  }
}

http::Task<Status> Proxy::CheckEngine() {
  http::RequestHead head;
  head.target = "/health";
  const http::CallOptions options = LegOptions(std::chrono::seconds(2));
  std::string body;
  const auto answer = co_await decoder_.Fetch(engine_, std::move(head), std::move(body), options);
  if (!answer.ok()) co_return answer.status();
  if (answer->head.status == 200) co_return OkStatus();
  co_return Unavailable("engine answers " + std::to_string(answer->head.status) + " on /health");
}

http::Task<void> Proxy::Ready(http::Exchange& exchange) {
  const Status status = co_await CheckEngine();
  if (!status.ok()) {
    co_await SendError(exchange, 503, "ServiceUnavailable",
                       "engine is not ready: " + status.message());
    co_return;
  }
  http::Response response = http::JsonResponse(200, R"({"status":"ready"})");
  (void)co_await exchange.Send(std::move(response));
}

http::Task<void> Proxy::SendError(http::Exchange& exchange, int status, std::string_view type,
                                  std::string message) {
  http::Response response = ErrorResponse(status, type, message);
  (void)co_await exchange.Send(std::move(response));
}

http::Task<void> Proxy::PassThrough(http::Exchange& exchange) {
  auto body = co_await exchange.ReadAll();
  if (!body.ok()) co_return;
  Job job;
  job.head = http::ForwardHead(exchange);
  for (const char* name : kRoutingHeaders) job.head.headers.Remove(name);
  job.logger = logger_;
  http::Cancellation cancel;
  const CancelOnGone watch(exchange, cancel);
  const http::CallOptions options = LegOptions(options_.decode_timeout);
  auto upstream = co_await decoder_.Call(engine_, std::move(job.head), *body, options, &cancel);
  if (!upstream.ok()) {
    metrics_.Request("passthrough", exchange.client_gone() ? 0 : 502);
    co_await SendError(exchange, 502, "BadGateway", upstream.status().message());
    co_return;
  }
  metrics_.Request("passthrough", (*upstream)->head().status);
  co_await AnswerDecode(exchange, **upstream, nullptr);
}

StatusOr<std::vector<http::HostPort>> Proxy::Candidates(const http::Headers& headers) const {
  std::vector<http::HostPort> out;
  for (const std::string& text : pd::PrefillCandidates(headers.GetAll("x-prefiller-host-port"),
                                                       headers.Get("x-prefiller-url"))) {
    LLMD_ASSIGN_OR_RETURN(http::HostPort peer, http::ParseHostPort(text));
    out.push_back(std::move(peer));
  }
  if (options_.sample_prefillers && out.size() > 1) {
    std::rotate(out.begin(), out.begin() + static_cast<ptrdiff_t>(RandomBits() % out.size()),
                out.end());
  }
  return out;
}

http::Task<void> Proxy::Generate(http::Exchange& exchange, pd::Api api) {
  auto body = co_await exchange.ReadAll();
  if (!body.ok()) co_return;
  Job job;
  job.api = api;
  job.body = *std::move(body);
  job.head = http::ForwardHead(exchange);
  auto candidates = Candidates(job.head.headers);
  for (const char* name : kRoutingHeaders) job.head.headers.Remove(name);
  std::string id(job.head.headers.Get("x-request-id").value_or(""));
  if (id.empty()) id = NewUuid();
  job.head.headers.Set("x-request-id", id);
  job.logger = logger_.With("x-request-id", id);
  if (!candidates.ok()) {
    metrics_.Request("disaggregated", 400);
    co_await SendError(exchange, 400, "BadRequestError",
                       "x-prefiller-host-port: " + candidates.status().message());
    co_return;
  }
  job.candidates = *std::move(candidates);
  if (!job.candidates.empty()) {
    co_await Disaggregate(exchange, job);
    co_return;
  }
  const std::string local = pd::LocalBody(job.body);
  co_await Decode(exchange, job, local, std::nullopt);
}

http::Task<void> Proxy::Disaggregate(http::Exchange& exchange, Job& job) {
  job.logger.Info("running NIXL protocol",
                  {{"prefillers", static_cast<int64_t>(job.candidates.size())}});
  const auto prefill_body = pd::PrefillBody(job.api, job.body);
  if (!prefill_body.ok()) {
    metrics_.Request("disaggregated", 400);
    co_await SendError(exchange, 400, "BadRequestError", prefill_body.status().message());
    co_return;
  }
  Prefilled prefilled = co_await Prefill(exchange, job, *prefill_body);
  if (prefilled.client_gone) {
    metrics_.Request("disaggregated", 0);
    // The prefill may have ended just before the client left: nobody will come for its blocks.
    const auto unwanted = pd::ParsePrefillReply(prefilled.response.body);
    if (unwanted.ok()) Release(job, Handover{std::string(unwanted->kv_transfer_params), 0});
    co_return;
  }
  const int status = prefilled.response.head.status;
  if (!IsSuccess(status) && pd::DecodesLocally(options_.policy(), status)) {
    metrics_.fallbacks.Add();
    job.logger.Warn("prefill failed, decoding locally", {{"status", status}});
    const std::string local = pd::LocalBody(job.body);
    co_await Decode(exchange, job, local, std::nullopt);
    co_return;
  }
  if (!IsSuccess(status)) {
    metrics_.Request("disaggregated", status);
    http::StripHopByHop(prefilled.response.head.headers);
    (void)co_await exchange.Send(std::move(prefilled.response));
    co_return;
  }
  const auto reply = pd::ParsePrefillReply(prefilled.response.body);
  if (!reply.ok()) {
    metrics_.Request("disaggregated", 400);
    co_await SendError(exchange, 400, "BadRequestError",
                       "prefiller's reply: " + reply.status().message());
    co_return;
  }
  LogPrefillReply(job, *reply);
  const auto decode_body = pd::DecodeBody(job.body, reply->kv_transfer_params);
  std::optional<Handover> handover(
      Handover{std::string(reply->kv_transfer_params), reply->cached_tokens});
  co_await Decode(exchange, job, *decode_body, std::move(handover));
}

void Proxy::LogPrefillReply(const Job& job, const pd::PrefillReply& reply) const {
  if (reply.kv_transfer_params.empty()) {
    metrics_.missing_params.Add();
    job.logger.Warn(
        "prefiller response has no kv_transfer_params; the decoder computes the whole prompt");
    return;
  }
  if (!job.logger.Enabled(LogLevel::kInfo)) return;
  job.logger.Info("received prefiller response",
                  {{"remote_block_ids", MemberOf(reply, "remote_block_ids")},
                   {"remote_engine_id", MemberOf(reply, "remote_engine_id")},
                   {"remote_host", MemberOf(reply, "remote_host")},
                   {"remote_port", MemberOf(reply, "remote_port")}});
}

http::Task<StatusOr<http::Response>> Proxy::PrefillOnce(http::Exchange& exchange, Job& job,
                                                        http::HostPort peer,
                                                        const std::string& body) {
  http::Cancellation cancel;
  const CancelOnGone watch(exchange, cancel);
  http::RequestHead head = job.head;
  // Both replies are read here, so they must come as text.
  head.headers.Remove("Accept-Encoding");
  const http::CallOptions options = LegOptions(options_.prefill_timeout);
  auto stream = co_await prefiller_.Call(std::move(peer), std::move(head), body, options, &cancel);
  if (!stream.ok()) co_return stream.status();
  http::Response response;
  response.head = (*stream)->head();
  // From here a leaving client must break the read, which the cancellation handle no longer covers.
  http::ResponseStream* reading = stream->get();
  exchange.OnClientGone([reading] { reading->Cancel(); });
  auto text = co_await reading->ReadAll(kMaxPrefillReplyBytes);
  if (!text.ok()) co_return text.status();
  response.body = *std::move(text);
  co_return response;
}

http::Task<Proxy::Prefilled> Proxy::Prefill(http::Exchange& exchange, Job& job,
                                            const std::string& body) {
  Prefilled out;
  pd::PrefillAttempts attempts(job.candidates.size(),
                               static_cast<int>(options_.prefill_max_retries));
  std::optional<pd::PrefillAttempts::Attempt> attempt(std::in_place);
  while (attempt) {
    if (attempt->wait) (void)co_await http::SleepFor(options_.prefill_retry_backoff);
    http::HostPort peer = job.candidates[attempt->candidate];
    const std::string url =
        std::string(options_.prefiller.scheme()) + "://" + peer.ToString() + job.head.target;
    WithBody(job.logger, body).Info("sending request to prefiller", {{"url", url}});
    const TimePoint start = Now();
    auto response = co_await PrefillOnce(exchange, job, std::move(peer), body);
    metrics_.Leg("prefill",
                 response.ok() ? Outcome(response->head.status) : Outcome(response.status()),
                 Now() - start);
    out.client_gone = exchange.client_gone();
    if (response.ok()) {
      out.response = *std::move(response);
    } else if (!out.client_gone) {
      const bool late = response.status().code() == StatusCode::kDeadlineExceeded;
      out.response = ErrorResponse(late ? 504 : 502, late ? "GatewayTimeout" : "BadGateway",
                                   "prefill leg to " + url + ": " + response.status().message());
      job.logger.Warn("prefill leg failed", {{"url", url}, {"err", response.status().message()}});
    }
    if (out.client_gone) co_return out;
    attempt = attempts.After(out.response.head.status);
    if (attempt) metrics_.retries.Add();
  }
  co_return out;
}

http::Task<void> Proxy::Decode(http::Exchange& exchange, Job& job, const std::string& body,
                               std::optional<Handover> handover) {
  const std::string_view path = handover ? "disaggregated" : "local";
  if (handover) {
    WithBody(job.logger, body)
        .Info("sending request to decoder",
              {{"url", "http://" + engine_.ToString() + job.head.target}});
    job.head.headers.Remove("Accept-Encoding");
  }
  http::Cancellation cancel;
  std::optional<CancelOnGone> watch;
  watch.emplace(exchange, cancel);
  const http::CallOptions options = LegOptions(options_.decode_timeout);
  const TimePoint start = Now();
  auto upstream = co_await decoder_.Call(engine_, job.head, body, options, &cancel);
  watch.reset();
  metrics_.Leg("decode",
               upstream.ok() ? Outcome((*upstream)->head().status) : Outcome(upstream.status()),
               Now() - start);
  if (upstream.ok()) {
    metrics_.Request(path, (*upstream)->head().status);
    // An engine that refuses before it has read the body tells nobody.
    if (!IsSuccess((*upstream)->head().status)) Release(job, handover);
    co_await AnswerDecode(exchange, **upstream, handover ? &*handover : nullptr);
    co_return;
  }
  Release(job, handover);
  const Status& why = upstream.status();
  const std::string_view outcome = Outcome(why);
  const int code = exchange.client_gone() ? 0
                   : outcome == "refused" ? 503
                   : outcome == "timeout" ? 504
                                          : 502;
  metrics_.Request(path, code);
  if (code == 0) co_return;
  if (code == 503) {
    job.logger.Error("waiting for vLLM to be ready", {{"err", why.message()}});
    co_await SendError(exchange, 503, "ServiceUnavailable",
                       "the decode node is not ready: " + why.message());
  } else {
    co_await SendError(exchange, code, code == 504 ? "GatewayTimeout" : "BadGateway",
                       "decode leg: " + why.message());
  }
}

void Proxy::Release(const Job& job, const std::optional<Handover>& handover) {
  if (!handover || handover->params.empty() || !release_) return;
  auto lender = pd::ParseLender(handover->params);
  if (!lender) return;
  job.logger.Info(
      "decode leg never started, telling the prefiller to release its blocks",
      {{"remote_request_id", lender->request_id}, {"remote_engine_id", lender->engine_id}});
  release_(*std::move(lender));
}

http::Task<void> Proxy::AnswerDecode(http::Exchange& exchange, http::ResponseStream& upstream,
                                     const Handover* handover) {
  http::RelayHooks hooks;
  std::optional<pd::UsageRewriter> rewriter;
  const auto kind = handover != nullptr ? RewriteKind(upstream.head()) : std::nullopt;
  if (kind) {
    rewriter.emplace(*kind, handover->cached_tokens);
    hooks.on_chunk = [&rewriter](std::string_view piece) { return rewriter->Feed(piece); };
    hooks.on_end = [&rewriter] { return rewriter->End(); };
  }
  const http::RelayResult result = co_await http::Relay(exchange, upstream, hooks);
  metrics_.response_bytes.Add(static_cast<double>(result.bytes));
  // A cut answer must look cut: the client's connection ends without its last chunk.
  if (!result.status.ok() && !result.client_gone) exchange.Abort();
}

}  // namespace llmd::sidecar
