// The engine behind us: what it is sent, and its answer's way to the client.
#include "sidecar/leg.h"
#include "sidecar/policy.h"

namespace llmd::sidecar {
namespace {

constexpr auto kHealthTimeout = std::chrono::seconds(2);
constexpr size_t kMaxHealthBytes = 64 << 10;

// Which rewriting the engine's answer needs, if any.
std::optional<pd::UsageRewriter::Kind> RewriteKind(const http::ResponseView& head) {
  if (!IsSuccess(head.status) || head.headers.Has(http::Known::kContentEncoding))
    return std::nullopt;
  const std::string_view type = head.headers.Get(http::Known::kContentType).value_or("");
  if (type.starts_with("application/json")) return pd::UsageRewriter::Kind::kJson;
  if (type.starts_with("text/event-stream")) return pd::UsageRewriter::Kind::kSse;
  return std::nullopt;
}

}  // namespace

void SidecarPolicy::StartEngine(relay::Call& call) {
  if (engine_.target.valid()) return SendToEngine(call, engine_.target);
  Of(call).stage = Stage::kEngineAddress;
  Of(call).asked = {};
  const auto known = resolver_.Ask(call, engine_.name);
  if (!known) return call.SetTimer(kAddressTimeout);
  if (known->ok()) return SendToEngine(call, **known);
  EngineFailed(call, relay::Failure::kRefused, known->status().message());
}

void SidecarPolicy::SendToEngine(relay::Call& call, const relay::Target& target) {
  Job& job = Of(call);
  job.stage = Stage::kEngine;
  job.asked = target;
  job.leg_started = call.now();
  if (job.kind == Kind::kReady || job.kind == Kind::kProbe) return AskHealth(call, target);
  relay::SendOptions send;
  send.target = target;
  send.tls = engine_tls_;
  send.first_byte_timeout = send.gap_timeout = options_.decode_timeout;
  // A request is counted under the prefiller it had.
  const std::string prefiller = job.handover ? job.record.endpoint : "";
  LegHeaders headers(job, BeginLeg(call, "llm_d.pd_proxy.decode", prefiller, target));
  if (pd::LegBodies* bodies = job.bodies()) {
    send.own_body = true;
    send.body = job.handover ? bodies->Decode(job.handover->params) : bodies->Local();
  }
  if (job.handover) {
    headers.Remove("Accept-Encoding");  // the answer's usage is rewritten
    if (logger_.Enabled(LogLevel::kInfo)) {
      logger_.Info("sending request to decoder",
                   {{"x-request-id", job.shown_id},
                    {"url", std::string(options_.decoder.scheme()) + "://" +
                                engine_.name.ToString() + std::string(call.request().target)}});
    }
  }
  send.headers = headers.lines();
  call.Send(send);
}

void SidecarPolicy::AskHealth(relay::Call& call, const relay::Target& target) {
  relay::SendOptions send;
  send.target = target;
  send.tls = engine_tls_;
  send.method = "GET";
  send.path = "/health";
  const relay::HeaderEdit host{.name = "Host", .value = engine_.name.host};
  send.headers = {&host, 1};
  send.own_headers = send.own_body = true;
  send.collect_bytes = kMaxHealthBytes;
  send.connect_timeout = send.first_byte_timeout = send.gap_timeout = kHealthTimeout;
  call.Send(send);
}

void SidecarPolicy::EngineFailed(relay::Call& call, relay::Failure failure, std::string_view what) {
  Job& job = Of(call);
  call.SetTimer(Duration::zero());
  if (job.kind == Kind::kReady || job.kind == Kind::kProbe)
    return HealthTold(call, Unavailable(std::string(WithoutAddress(what, job.asked))));
  if (job.kind != Kind::kPassThrough)
    metrics_.Leg("decode", relay::NameOf(failure), call.now() - job.leg_started);
  Release(job);
  const bool refused = failure == relay::Failure::kRefused;
  const bool late = failure == relay::Failure::kTimeout;
  const std::string told(WithoutAddress(what, job.asked));
  const int status = refused || failure == relay::Failure::kOurs ? 503 : late ? 504 : 502;
  metrics_.Request(RouteOf(job.kind), status);
  if (refused) {
    logger_.Error("waiting for vLLM to be ready", {{"x-request-id", job.shown_id}, {"err", what}});
    return AnswerError(call, status, "ServiceUnavailable", "the decode node is not ready: " + told,
                       relay::NameOf(failure));
  }
  // Lacks of our own are nobody's failure.
  const bool theirs = failure != relay::Failure::kOurs;
  AnswerError(call, status,
              status == 503 ? "ServiceUnavailable"
              : late        ? "GatewayTimeout"
                            : "BadGateway",
              "decode leg: " + told, theirs ? relay::NameOf(failure) : std::string_view());
}

void SidecarPolicy::OnResponseHead(relay::Call& call, const http::ResponseView& head) {
  Job& job = Of(call);
  observer_.Answering(job.record, head);
  if (job.kind != Kind::kPassThrough)
    metrics_.Leg("decode", OutcomeOf(head.status), call.now() - job.leg_started);
  metrics_.Request(RouteOf(job.kind), head.status);
  // An engine that refuses before it has read the body tells nobody.
  if (!IsSuccess(head.status)) Release(job);
  job.stage = Stage::kAnswering;
  job.forwarded = true;
  const auto kind = job.handover ? RewriteKind(head) : std::nullopt;
  if (kind) job.rewriter.emplace(*kind, job.handover->cached_tokens);
  call.Forward({}, kind ? relay::BodyMode::kEdit : relay::BodyMode::kWatch);
}

relay::Piece SidecarPolicy::OnResponseBytes(relay::Call& call, std::string_view piece, bool end) {
  Job& job = Of(call);
  observer_.Piece(job.record, call.now(), piece, end);
  if (!job.rewriter) return {piece};
  const std::string_view ready = job.rewriter->Feed(piece);
  if (!end) return {ready};
  job.tail = ready;
  job.tail += job.rewriter->End();
  return {job.tail};
}

// As if the engine's own connection broke: who is in front of us says so to the client in its way.
std::string_view SidecarPolicy::OnCut(relay::Call& call, relay::Failure failure,
                                      std::string_view what) {
  observer_.Cut(Of(call).record, failure, what);
  call.Abort();
  return {};
}

void SidecarPolicy::Release(Job& job) {
  if (!job.handover || job.handover->params.empty()) return;
  auto lender = pd::ParseLender(job.handover->params);
  job.handover->params.clear();
  if (!lender) return;
  logger_.Info("decode leg never started, telling the prefiller to release its blocks",
               {{"x-request-id", job.shown_id},
                {"remote_request_id", lender->request_id},
                {"remote_engine_id", lender->engine_id}});
  shared_.release(*std::move(lender));
}

}  // namespace llmd::sidecar
