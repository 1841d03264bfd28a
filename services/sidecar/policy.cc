#include "sidecar/policy.h"

#include <algorithm>
#include <array>

#include "sidecar/leg.h"

namespace llmd::sidecar {
namespace {

constexpr size_t kMaxFreeJobs = 1024;
constexpr auto kProbeInterval = std::chrono::seconds(1);

bool IsOurPage(const http::RequestView& request, std::string_view path) {
  return request.method == "GET" && request.path() == path;
}

std::string_view TypeOf(int status) {
  switch (status) {
    case 408:
      return "RequestTimeout";
    case 413:
      return "RequestEntityTooLarge";
    case 431:
      return "RequestHeaderFieldsTooLarge";
    case 503:
      return "ServiceUnavailable";
    case 505:
      return "HttpVersionNotSupported";
    default:
      return "BadRequestError";
  }
}

Peer EngineOf(const Options& options) {
  Peer engine{{options.model_server_host, options.model_server_port}, {}};
  engine.target = relay::Target::Parse(engine.name.ToString()).value_or(relay::Target());
  return engine;
}

}  // namespace

SidecarPolicy::SidecarPolicy(relay::Loop& loop, const Shared& shared)
    : loop_(loop),
      shared_(shared),
      options_(shared.options),
      logger_(shared.logger),
      metrics_(shared.metrics),
      observer_(shared.observed, loop.index()),
      engine_(EngineOf(shared.options)),
      resolver_(
          loop, shared.look_up, shared.look_up_on,
          [this](relay::Call& call, const http::HostPort& name,
                 const StatusOr<relay::Target>& target) { AddressFound(call, name, target); }),
      watching_(loop.index() == 0) {
  LookAtTls();
}

SidecarPolicy::~SidecarPolicy() = default;

void SidecarPolicy::LookAtTls() {
  if (shared_.prefiller_tls) {
    std::shared_ptr<const http::TlsContext> context = shared_.prefiller_tls();
    if (context != prefiller_context_) prefiller_tls_.clear();
    prefiller_context_ = std::move(context);
  }
  if (!shared_.decoder_tls) return;
  std::shared_ptr<const http::TlsContext> context = shared_.decoder_tls();
  if (engine_tls_ && engine_tls_->context == context) return;
  const std::string& host = shared_.server_name.empty() ? engine_.name.host : shared_.server_name;
  engine_tls_ =
      std::make_shared<const relay::UpstreamTls>(relay::UpstreamTls{std::move(context), host});
}

Job& SidecarPolicy::Take(relay::Call& call) {
  if (free_jobs_.empty()) free_jobs_.push_back(std::make_unique<Job>());
  call.context = free_jobs_.back().release();
  free_jobs_.pop_back();
  return Of(call);
}

void SidecarPolicy::Give(Job& job) {
  std::unique_ptr<Job> owned(&job);
  if (free_jobs_.size() >= kMaxFreeJobs) return;
  *owned = Job();
  free_jobs_.push_back(std::move(owned));
}

// What is needed of the head once it has gone.
Job& SidecarPolicy::Begin(relay::Call& call) {
  Job& job = Take(call);
  const http::RequestView& request = call.request();
  job.method.assign(request.method);
  job.path.assign(request.path());
  job.shown_id =
      request.headers.Get(http::Known::kXRequestId).value_or("").substr(0, kMaxShownIdBytes);
  observer_.Begin(job.record, call);
  return job;
}

void SidecarPolicy::OnHead(relay::Call& call) {
  Job& job = Begin(call);
  if (!IsOurPage(call.request(), "/health")) return;
  job.stage = Stage::kAnswering;
  call.Answer(200, {}, "");
}

void SidecarPolicy::OnRequest(relay::Call& call) {
  observer_.Whole(Of(call).record, call);
  const http::RequestView& request = call.request();
  const auto api = request.method == "POST" ? pd::ApiOfPath(request.path()) : std::nullopt;
  if (api) return Generate(call, *api);
  if (IsOurPage(request, "/ready")) Of(call).kind = Kind::kReady;
  StartEngine(call);
}

void SidecarPolicy::AnswerError(relay::Call& call, int status, std::string_view type,
                                std::string_view message, std::string_view failure) {
  if (call.context != nullptr) Of(call).stage = Stage::kAnswering;
  const std::string_view id = call.context != nullptr ? std::string_view(Of(call).id) : "";
  std::array<relay::HeaderEdit, 3> headers;
  size_t count = 0;
  headers[count++] = {.name = "Content-Type", .value = "application/json"};
  if (!failure.empty()) headers[count++] = {.name = http::kUpstreamFailure, .value = failure};
  if (!id.empty()) headers[count++] = {.name = "x-request-id", .value = id};
  call.Answer(status, {headers.data(), count}, pd::ErrorBody(status, type, message));
}

void SidecarPolicy::OnRefused(relay::Call& call, const relay::Refusal& refusal) {
  metrics_.Request("refused", refusal.status);
  if (call.context == nullptr) Begin(call);
  Job& job = Of(call);
  TakeId(call.request(), job);
  observer_.Refused(job.record, refusal);
  AnswerError(call, refusal.status, TypeOf(refusal.status), refusal.message);
}

void SidecarPolicy::OnFailure(relay::Call& call, relay::Failure failure, std::string_view what) {
  const bool asked = Of(call).kind != Kind::kReady && Of(call).kind != Kind::kProbe;
  switch (Of(call).stage) {
    case Stage::kPrefill:
      observer_.Failed(Of(call).record, failure, what);
      return PrefillFailed(call, relay::NameOf(failure), what);
    case Stage::kEngine:
      if (asked) observer_.Failed(Of(call).record, failure, what);
      return EngineFailed(call, failure, what);
    default:
      return;  // of a leg that has been given up already
  }
}

void SidecarPolicy::OnCollected(relay::Call& call, const http::ResponseView& head,
                                std::string_view body) {
  switch (Of(call).stage) {
    case Stage::kPrefill:
    case Stage::kBackOff:  // late, but here
      return PrefillAnswered(call, head, body);
    case Stage::kEngine:
      return HealthTold(
          call, head.status == 200
                    ? OkStatus()
                    : Unavailable("engine answers " + std::to_string(head.status) + " on /health"));
    default:
      return;
  }
}

void SidecarPolicy::HealthTold(relay::Call& call, const Status& engine) {
  Job& job = Of(call);
  if (job.kind == Kind::kProbe) {
    if (engine.ok()) {
      watching_ = false;
      logger_.Info("engine is ready");
    } else {
      logger_.Info("waiting for vLLM to be ready", {{"err", engine.message()}});
    }
    job.stage = Stage::kAnswering;
    return call.Abort();
  }
  if (!engine.ok()) {
    return AnswerError(call, 503, "ServiceUnavailable", "engine is not ready: " + engine.message());
  }
  job.stage = Stage::kAnswering;
  const relay::HeaderEdit json{.name = "Content-Type", .value = "application/json"};
  call.Answer(200, {&json, 1}, R"({"status":"ready"})");
}

void SidecarPolicy::OnTimer(relay::Call& call) {
  Job& job = Of(call);
  switch (job.stage) {
    case Stage::kScan:
      metrics_.Request(RouteOf(job.kind), 503);
      return AnswerError(call, 503, "ServiceUnavailable",
                         "the request waited too long for a worker to read it");
    case Stage::kPrefillerAddress:
      return PrefillFailed(call, "timeout", "the prefiller's address is not found in time");
    case Stage::kPrefill:
      observer_.Failed(job.record, relay::Failure::kTimeout, "no whole answer in time");
      return PrefillFailed(call, "timeout", "no whole answer within --prefill-timeout");
    case Stage::kBackOff:
      return StartPrefill(call);
    case Stage::kEngineAddress:
      return EngineFailed(call, relay::Failure::kRefused,
                          "the engine's address is not found in time");
    default:
      return;
  }
}

void SidecarPolicy::OnEnd(relay::Call& call, const relay::Outcome& outcome) {
  if (call.context == nullptr) return;
  Job& job = Of(call);
  if (job.kind == Kind::kProbe) {
    probing_ = false;
  } else {
    observer_.End(job.record, outcome, job.shown_id, job.method, job.path);
  }
  if (job.forwarded) {
    metrics_.all().response_bytes.Add(static_cast<double>(outcome.body_bytes));
  } else if (job.stage != Stage::kAnswering) {
    Ended(call, job);
  }
  if (job.scan && !job.scan->done.load(std::memory_order_acquire)) {
    job.stage = Stage::kAnswering;
    call.Retain();
    retained_.push_back({&call, std::unique_ptr<Job>(&job)});
    return;
  }
  call.context = nullptr;
  Give(job);
}

// The client has left, or we are made to stop, before there was an answer.
void SidecarPolicy::Ended(relay::Call& call, Job& job) {
  if (job.kind == Kind::kProbe || job.kind == Kind::kReady || job.stage == Stage::kNew) return;
  metrics_.Request(RouteOf(job.kind), 0);
  const Duration elapsed = call.now() - job.leg_started;
  if (job.stage == Stage::kPrefill) metrics_.Leg("prefill", "cancelled", elapsed);
  if (job.stage == Stage::kEngine && job.kind != Kind::kPassThrough)
    metrics_.Leg("decode", "cancelled", elapsed);
  Release(job);
}

void SidecarPolicy::OnTick() {
  observer_.HandOver();
  LookAtTls();
  std::erase_if(retained_, [](Retained& over) {
    if (!over.job->scan->done.load(std::memory_order_acquire)) return false;
    over.call->context = nullptr;
    over.call->LetGo();
    return true;
  });
  if (!watching_ || probing_ || loop_.now() - probed_ < kProbeInterval) return;
  probed_ = loop_.now();
  probing_ = true;
  relay::Call& probe = loop_.Open();
  Take(probe).kind = Kind::kProbe;
  StartEngine(probe);
}

}  // namespace llmd::sidecar
