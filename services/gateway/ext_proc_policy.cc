#include "gateway/ext_proc_policy.h"

#include <utility>

#include "llmd/json.h"

namespace llmd::gateway {
namespace {

// Calls kept for the next requests of a loop.
constexpr size_t kMaxSpare = 1024;

double Seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

std::string_view ErrorType(int status) {
  switch (status) {
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 502:
    case 503:
    case 504:
      return "service_unavailable";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

}  // namespace

std::string ErrorBody(int status, std::string_view message) {
  json::Value error;
  error.Set("message", message);
  error.Set("type", ErrorType(status));
  error.Set("param", nullptr);
  error.Set("code", status);
  json::Value body;
  body.Set("error", std::move(error));
  return body.Dump();
}

ExtProcMetrics::ExtProcMetrics(MetricsRegistry& r)
    : registry(r),
      inflight(r.AddGauge("llmd_gateway_requests_inflight", "Requests being served.")),
      retries(r.AddCounter("llmd_gateway_retries_total",
                           "Attempts beyond the first, on another endpoint.")),
      panics(r.AddCounter("llmd_gateway_panic_attempts_total",
                          "Attempts at endpoints that had just failed, as none was left.")),
      upstream_cut(
          r.AddCounter("llmd_gateway_upstream_cut_total", "Answers an engine broke off.")),
      client_gone(
          r.AddCounter("llmd_gateway_client_gone_total", "Clients that left before the end.")),
      lost(r.AddCounter("llmd_gateway_picker_lost_total",
                        "Requests whose endpoint picker broke off or gave no sign of life.")),
      alone(r.AddCounter("llmd_gateway_without_picker_total",
                         "Requests sent on without a picker (--epp-failure-mode=open).")),
      duration(r.AddHistogram("llmd_gateway_request_duration_seconds",
                              "From request head to last byte.",
                              {.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300})),
      first_byte(r.AddHistogram(
          "llmd_gateway_first_byte_seconds", "From request head to the answer's head.",
          {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60})),
      asking(r.AddHistogram("llmd_gateway_picker_seconds",
                            "From request head to the endpoint picker's routing.",
                            {.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 60})) {}

Counter& ExtProcMetrics::Requests(int status) {
  Labels labels;
  labels.emplace_back("status", std::to_string(status));
  return registry.AddCounter("llmd_gateway_requests_total", "Requests by the status sent.", labels);
}

ExtProcPolicy::ExtProcPolicy(PickerClient& client, const ExtProcOptions& options,
                             ExtProcMetrics& metrics, Logger logger, TimePoint now,
                             std::function<bool()> ready)
    : client_(client),
      options_(options),
      metrics_(metrics),
      logger_(std::move(logger)),
      book_(options.ejection),
      ready_(std::move(ready)) {
  for (const std::string& address : options.endpoints) {
    const auto target = relay::Target::Parse(address);
    if (target.ok()) book_.Learn(*target, address, now);
  }
}

void ExtProcPolicy::OnHead(relay::Call& call) {
  const std::string_view path = call.request().path();
  if (path == "/health") return call.Answer(200, {}, "");
  if (path == "/ready") return call.Answer(ready_() ? 200 : 503, {}, "");
  const relay::HeaderEdit json{"content-type", "application/json", false};
  if (!path.starts_with("/v1/") && !path.starts_with("/v2/"))
    call.Answer(404, {&json, 1}, ErrorBody(404, "no such route"));
}

bool ExtProcPolicy::PickerIsLost(TimePoint now) const {
  return client_.unanswered_since() <= now - options_.timeout / 2;
}

void ExtProcPolicy::OnRequest(relay::Call& call) {
  std::unique_ptr<ExtProcCall> own;
  if (spare_.empty()) {
    own = std::make_unique<ExtProcCall>(*this);
  } else {
    own = std::move(spare_.back());
    spare_.pop_back();
  }
  metrics_.inflight.Add(1);
  ExtProcCall* const mine = own.release();
  call.context = mine;
  mine->Begin(call);
}

void ExtProcPolicy::OnRefused(relay::Call& call, const relay::Refusal& refusal) {
  relay::Policy::OnRefused(call, refusal);
}

void ExtProcPolicy::OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) {
  Of(call).OnFailure(failure, what);
}

void ExtProcPolicy::OnResponseHead(relay::Call& call, const http::ResponseView& head) {
  Of(call).OnResponseHead(head);
}

relay::Piece ExtProcPolicy::OnResponseBytes(relay::Call& call, std::string_view piece, bool end) {
  return Of(call).OnResponseBytes(piece, end);
}

std::string_view ExtProcPolicy::OnCut(relay::Call& call, relay::Failure failure,
                                      std::string_view what) {
  metrics_.upstream_cut.Add();
  logger_.Warn("engine broke off its answer", {{"x-request-id", Of(call).request_id()},
                                               {"endpoint", Of(call).served()},
                                               {"error", what}});
  return relay::Policy::OnCut(call, failure, what);
}

void ExtProcPolicy::OnTimer(relay::Call& call) {
  Of(call).OnTimer();
}

void ExtProcPolicy::OnEnd(relay::Call& call, const relay::Outcome& outcome) {
  metrics_.Requests(outcome.status).Add();
  if (outcome.client_gone) metrics_.client_gone.Add();
  metrics_.duration.Observe(Seconds(outcome.ended - outcome.received));
  if (outcome.head_sent != TimePoint())
    metrics_.first_byte.Observe(Seconds(outcome.head_sent - outcome.received));
  Log(call, outcome);
  if (call.context == nullptr) return;
  std::unique_ptr<ExtProcCall> mine(&Of(call));
  call.context = nullptr;
  metrics_.inflight.Add(-1);
  mine->End(outcome.whole);
  if (spare_.size() < kMaxSpare) spare_.push_back(std::move(mine));
}

void ExtProcPolicy::Log(const relay::Call& call, const relay::Outcome& outcome) {
  const ExtProcCall* mine = static_cast<const ExtProcCall*>(call.context);
  logger_.Info("request", {{"x-request-id", mine != nullptr ? mine->request_id() : std::string()},
                           {"method", call.request().method},
                           {"path", call.request().path()},
                           {"status", outcome.status},
                           {"endpoint", mine != nullptr ? mine->served() : std::string()},
                           {"seconds", Seconds(outcome.ended - outcome.received)},
                           {"clientGone", outcome.client_gone}});
}

void ExtProcPolicy::OnTick() {
  client_.OnTick();
  // One that stood still is found again.
  if (client_.unanswered_since() != TimePoint::max()) client_.Probe();
}

ExtProcFront::ExtProcFront(ExtProcOptions options, Logger logger, MetricsRegistry& metrics)
    : options_(std::move(options)),
      logger_(std::move(logger)),
      metrics_(metrics),
      credentials_(PickerCredentials(options_.address)) {}

ExtProcFront::~ExtProcFront() {
  Stop();
}

StatusOr<std::unique_ptr<ExtProcFront>> ExtProcFront::Create(ExtProcOptions options, Logger logger,
                                                             MetricsRegistry& metrics) {
  for (const std::string& address : options.endpoints)
    LLMD_RETURN_IF_ERROR(relay::Target::Parse(address).status().WithContext("--epp-endpoint"));
  return std::unique_ptr<ExtProcFront>(
      new ExtProcFront(std::move(options), std::move(logger), metrics));
}

std::unique_ptr<relay::Policy> ExtProcFront::MakePolicy(relay::Loop& loop) {
  grpc::ChannelArguments arguments;
  // A picker that starts after the gateway, or comes back, is found within the second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);  // how long a handshake may take
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // One connection a loop; what broke off is asked again by the call itself.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  PickerClientOptions client;
  client.channel = grpc::CreateCustomChannel(options_.address.target, credentials_, arguments);
  client.post = [&loop](std::function<void()> fn) { return loop.Post(std::move(fn)); };
  client.probe_timeout = options_.timeout / 2;
  clients_.push_back(std::make_unique<GrpcPickerClient>(std::move(client)));
  return std::make_unique<ExtProcPolicy>(*clients_.back(), options_, metrics_, logger_,
                                         SystemClock().Now(), [this] { return ready(); });
}

bool ExtProcFront::ready() const {
  for (const auto& client : clients_) {
    if (!client->ready()) return options_.open && !options_.endpoints.empty();
  }
  return !clients_.empty();
}

void ExtProcFront::Stop() {
  for (const auto& client : clients_) client->Stop();
}

}  // namespace llmd::gateway
