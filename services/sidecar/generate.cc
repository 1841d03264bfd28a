// A generation before its first leg: whose header it has, which bodies its legs get.
#include <algorithm>
#include <chrono>

#include "common/body_model.h"
#include "llmd/uuid.h"
#include "sidecar/leg.h"
#include "sidecar/policy.h"

namespace llmd::sidecar {
namespace {

constexpr auto kScanTimeout = std::chrono::seconds(30);
constexpr std::string_view kHeader = "x-prefiller-host-port";

// What the legs get instead of the client's body.
void ReadBody(std::string_view body, Kind kind, Scan& scan) {
  if (kind == Kind::kDisaggregated || pd::MayHoldParams(body)) {
    auto bodies = pd::LegBodies::Parse(body);
    scan.status = bodies.status();
    if (bodies.ok()) scan.bodies = *std::move(bodies);
  }
  scan.done.store(true, std::memory_order_release);
}

}  // namespace

Status SidecarPolicy::TakeCandidates(const http::RequestView& request, Job& job) const {
  std::vector<std::string_view> lines;
  std::optional<std::string_view> legacy;
  for (const http::HeaderLine& line : request.headers.lines) {
    if (line.known != http::Known::kOther) continue;
    if (http::EqualsIgnoreCase(line.name, kHeader)) lines.push_back(line.value);
    if (!legacy && http::EqualsIgnoreCase(line.name, "x-prefiller-url")) legacy = line.value;
  }
  if (lines.empty() && !legacy) return OkStatus();
  for (const std::string& text : pd::PrefillCandidates(lines, legacy)) {
    if (job.candidates.size() == kMaxCandidates)
      return InvalidArgument("more than " + std::to_string(kMaxCandidates) + " prefillers");
    LLMD_ASSIGN_OR_RETURN(http::HostPort name, http::ParseHostPort(text));
    const auto target = relay::Target::Parse(text);
    job.candidates.push_back({std::move(name), target.value_or(relay::Target())});
  }
  if (options_.sample_prefillers && job.candidates.size() > 1) {
    const auto first = static_cast<ptrdiff_t>(RandomBits() % job.candidates.size());
    std::rotate(job.candidates.begin(), job.candidates.begin() + first, job.candidates.end());
  }
  return OkStatus();
}

void SidecarPolicy::TakeId(const http::RequestView& request, Job& job) const {
  size_t given = 0;
  for (const http::HeaderLine& line : request.headers.lines) {
    if (line.known != http::Known::kXRequestId) continue;
    if (given++ == 0) job.id = line.value;
  }
  job.given_id = given == 1 && !job.id.empty();
  if (job.id.empty()) job.id = NewUuid();
  job.shown_id = job.id.substr(0, kMaxShownIdBytes);
}

void SidecarPolicy::Generate(relay::Call& call, pd::Api api) {
  Job& job = Of(call);
  job.api = api;
  const Status candidates = TakeCandidates(call.request(), job);
  if (!candidates.ok()) {
    metrics_.Request("disaggregated", 400);
    return AnswerError(call, 400, "BadRequestError",
                       std::string(kHeader) + ": " + candidates.message());
  }
  TakeId(call.request(), job);
  job.kind = job.candidates.empty() ? Kind::kLocal : Kind::kDisaggregated;
  if (job.kind == Kind::kDisaggregated) {
    job.attempts.emplace(job.candidates.size(), static_cast<int>(options_.prefill_max_retries));
    logger_.Info("running NIXL protocol",
                 {{"x-request-id", job.shown_id},
                  {"prefillers", static_cast<int64_t>(job.candidates.size())}});
  }
  StartTrace(call, job);
  StartScan(call, job);
}

void SidecarPolicy::StartTrace(relay::Call& call, Job& job) {
  if (call.body().size() < kScanOnWorkerBytes) services::ReadModel(call.body(), job.record.model);
  observer_.Trace(job.record, call, "llm_d.pd_proxy.request", job.shown_id);
}

void SidecarPolicy::StartScan(relay::Call& call, Job& job) {
  const std::string_view body = call.body();
  const bool small = body.size() < kScanOnWorkerBytes;
  if (small && job.kind == Kind::kLocal && !pd::MayHoldParams(body)) return StartEngine(call);
  job.scan = std::make_shared<Scan>();
  job.stage = Stage::kScan;
  if (small) {
    ReadBody(body, job.kind, *job.scan);
    return Scanned(call);
  }
  // The body stays where it is until the worker is done: see OnEnd.
  const Status queued =
      shared_.scan([this, body, kind = job.kind, scan = job.scan, ref = call.ref()] {
        ReadBody(body, kind, *scan);
        // Where the loop has no room for it, the request's timer answers.
        (void)ref.Post([this](relay::Call& c) { Scanned(c); });
      });
  if (queued.ok()) return call.SetTimer(kScanTimeout);
  job.scan.reset();
  metrics_.Request(job.kind == Kind::kLocal ? "local" : "disaggregated", 503);
  AnswerError(call, 503, "ServiceUnavailable", "too many large requests at once");
}

void SidecarPolicy::Scanned(relay::Call& call) {
  if (call.context == nullptr || Of(call).stage != Stage::kScan) return;
  Job& job = Of(call);
  call.SetTimer(Duration::zero());
  if (job.kind == Kind::kLocal) return StartEngine(call);
  if (job.scan->status.ok()) return StartPrefill(call);
  metrics_.Request("disaggregated", 400);
  AnswerError(call, 400, "BadRequestError", job.scan->status.message());
}

void SidecarPolicy::AddressFound(relay::Call& call, const http::HostPort& name,
                                 const StatusOr<relay::Target>& target) {
  if (call.context == nullptr) return;
  Job& job = Of(call);
  if (job.stage == Stage::kPrefillerAddress && name == job.candidates[job.candidate].name) {
    call.SetTimer(Duration::zero());
    if (target.ok()) return SendPrefill(call, *target);
    return PrefillFailed(call, "refused", target.status().message());
  }
  if (job.stage == Stage::kEngineAddress && name == engine_.name) {
    call.SetTimer(Duration::zero());
    if (target.ok()) return SendToEngine(call, *target);
    return EngineFailed(call, relay::Failure::kRefused, target.status().message());
  }
}

}  // namespace llmd::sidecar
