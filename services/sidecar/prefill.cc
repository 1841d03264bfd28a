// The prefill leg: asking the candidates, and what becomes of their answers.
#include <algorithm>

#include "llmd/http/connection_names.h"
#include "sidecar/leg.h"
#include "sidecar/policy.h"

namespace llmd::sidecar {
namespace {

constexpr size_t kMaxReplyBytes = 64 << 20;
constexpr size_t kMaxShownJsonBytes = 1024;

// Each by itself, as what stands beside it need not be readable. Long ones are shown as text.
json::Value Shown(const pd::ObjectEdit& params, std::string_view key) {
  const std::string_view raw = params.Get(key);
  if (raw.size() > kMaxShownJsonBytes) return std::string(raw.substr(0, kMaxShownJsonBytes)) + "…";
  return raw.empty() ? json::Value() : json::Parse(raw).value_or(json::Value());
}

// The lines of a collected answer that may go on to the client.
std::vector<relay::HeaderEdit> EndToEnd(const http::HeaderLines& headers) {
  std::vector<relay::HeaderEdit> out;
  const http::ConnectionNames named(headers);
  for (const http::HeaderLine& line : headers.lines) {
    if (http::IsHopByHop(line.known) || line.known == http::Known::kContentLength ||
        line.known == http::Known::kDate)
      continue;
    if (!named.Contain(line.name)) out.push_back({.name = line.name, .value = line.value});
  }
  return out;
}

std::string Join(pd::LegBodies::Pieces pieces) {
  std::string out;
  for (std::string_view piece : pieces) out += piece;
  return out;
}

}  // namespace

std::string SidecarPolicy::PrefillUrl(relay::Call& call) const {
  const Job& job = Of(call);
  std::string url(options_.prefiller.scheme());
  url.append("://").append(job.candidates[job.candidate].name.ToString());
  return url.append(call.request().target);
}

// Addresses, and whoever has the name that is asked of all, share one; others have one each, which
// is forgotten, when there are many, once no leg uses it.
std::shared_ptr<const relay::UpstreamTls> SidecarPolicy::TlsFor(const Peer& peer) {
  const std::string host =
      !shared_.server_name.empty() || peer.target.valid() ? shared_.server_name : peer.name.host;
  const auto at = prefiller_tls_.find(host);
  if (at != prefiller_tls_.end()) return at->second;
  if (prefiller_tls_.size() >= kMaxTlsHosts)
    std::erase_if(prefiller_tls_, [](const auto& entry) { return entry.second.use_count() == 1; });
  if (prefiller_tls_.size() >= kMaxTlsHosts) return nullptr;
  auto made =
      std::make_shared<const relay::UpstreamTls>(relay::UpstreamTls{prefiller_context_, host});
  return prefiller_tls_.emplace(host, std::move(made)).first->second;
}

void SidecarPolicy::StartPrefill(relay::Call& call) {
  Job& job = Of(call);
  const Peer& peer = job.candidates[job.candidate];
  job.leg_started = call.now();
  if (peer.target.valid()) return SendPrefill(call, peer.target);
  job.stage = Stage::kPrefillerAddress;
  job.asked = {};
  const auto known = resolver_.Ask(call, peer.name);
  if (!known) return call.SetTimer(kAddressTimeout);
  if (known->ok()) return SendPrefill(call, **known);
  PrefillFailed(call, "refused", known->status().message());
}

void SidecarPolicy::SendPrefill(relay::Call& call, const relay::Target& target) {
  Job& job = Of(call);
  relay::SendOptions send;
  send.target = job.asked = target;
  if (shared_.prefiller_tls) {
    send.tls = TlsFor(job.candidates[job.candidate]);
    if (send.tls == nullptr) {
      return PrefillFailed(call, "ours",
                           "more than " + std::to_string(kMaxTlsHosts) + " prefillers over TLS");
    }
  }
  const std::string prefiller = job.candidates[job.candidate].name.ToString();
  LegHeaders headers(job, BeginLeg(call, "llm_d.pd_proxy.prefill", prefiller, target));
  headers.Remove("Accept-Encoding");  // the reply is read here
  send.headers = headers.lines();
  send.own_body = true;
  send.body = job.bodies()->Prefill(job.api);
  send.collect_bytes = kMaxReplyBytes;
  send.first_byte_timeout = send.gap_timeout = options_.prefill_timeout;
  if (logger_.Enabled(LogLevel::kTrace)) {
    logger_.Info(
        "sending request to prefiller",
        {{"x-request-id", job.shown_id}, {"url", PrefillUrl(call)}, {"body", Join(send.body)}});
  } else if (logger_.Enabled(LogLevel::kInfo)) {
    logger_.Info("sending request to prefiller",
                 {{"x-request-id", job.shown_id}, {"url", PrefillUrl(call)}});
  }
  job.stage = Stage::kPrefill;
  job.leg_started = call.now();
  // Of the whole leg: a reply that trickles must end too.
  call.SetTimer(options_.prefill_timeout);
  call.Send(send);
}

std::string_view SidecarPolicy::BeginLeg(relay::Call& call, std::string_view span,
                                         std::string_view prefiller, const relay::Target& target) {
  return observer_.Sending(
      Of(call).record, call.now(),
      {.span = span, .name = prefiller, .address = target.ToString(), .parent = {}});
}

bool SidecarPolicy::TryAgain(relay::Call& call, int status) {
  Job& job = Of(call);
  const auto next = job.attempts->After(status);
  if (!next) return false;
  metrics_.all().retries.Add();
  job.candidate = next->candidate;
  if (next->wait) {
    job.stage = Stage::kBackOff;
    call.SetTimer(options_.prefill_retry_backoff);
  } else {
    StartPrefill(call);
  }
  return true;
}

void SidecarPolicy::PrefillFailed(relay::Call& call, std::string_view outcome,
                                  std::string_view what) {
  Job& job = Of(call);
  call.SetTimer(Duration::zero());
  metrics_.Leg("prefill", outcome, call.now() - job.leg_started);
  logger_.Warn("prefill leg failed",
               {{"x-request-id", job.shown_id}, {"url", PrefillUrl(call)}, {"err", what}});
  const bool late = outcome == "timeout";
  const int status = late ? 504 : 502;
  if (TryAgain(call, status) || DecodeWithout(call, status)) return;
  metrics_.Request("disaggregated", status);
  AnswerError(call, status, late ? "GatewayTimeout" : "BadGateway",
              "prefill leg: " + std::string(WithoutAddress(what, job.asked)), "prefill");
}

void SidecarPolicy::PrefillAnswered(relay::Call& call, const http::ResponseView& head,
                                    std::string_view body) {
  Job& job = Of(call);
  call.SetTimer(Duration::zero());
  observer_.Collected(job.record, head.status);
  metrics_.Leg("prefill", OutcomeOf(head.status), call.now() - job.leg_started);
  if (TryAgain(call, head.status)) return;
  if (IsSuccess(head.status)) return HandOver(call, body);
  if (DecodeWithout(call, head.status)) return;
  metrics_.Request("disaggregated", head.status);
  job.stage = Stage::kAnswering;
  call.Answer(head.status, EndToEnd(head.headers), body);
}

bool SidecarPolicy::DecodeWithout(relay::Call& call, int status) {
  if (!pd::DecodesLocally(options_.policy(), status)) return false;
  Job& job = Of(call);
  metrics_.all().fallbacks.Add();
  logger_.Warn("prefill failed, decoding locally",
               {{"x-request-id", job.shown_id}, {"status", status}});
  job.kind = Kind::kLocal;
  StartEngine(call);
  return true;
}

void SidecarPolicy::HandOver(relay::Call& call, std::string_view text) {
  Job& job = Of(call);
  const auto reply = pd::ParsePrefillReply(text);
  if (!reply.ok()) {
    metrics_.Request("disaggregated", 400);
    return AnswerError(call, 400, "BadRequestError",
                       "prefiller's reply: " + reply.status().message());
  }
  LogReply(job, *reply);
  job.handover = Handover{std::string(reply->kv_transfer_params), reply->cached_tokens};
  StartEngine(call);
}

void SidecarPolicy::LogReply(const Job& job, const pd::PrefillReply& reply) const {
  if (reply.kv_transfer_params.empty()) {
    shared_.metrics.missing_params.Add();
    logger_.Warn(
        "prefiller response has no kv_transfer_params; the decoder computes the whole prompt",
        {{"x-request-id", job.shown_id}});
    return;
  }
  if (!logger_.Enabled(LogLevel::kInfo)) return;
  const auto params = pd::ObjectEdit::Parse(reply.kv_transfer_params);
  if (!params.ok()) return;  // no object: the engine will say so
  logger_.Info("received prefiller response",
               {{"x-request-id", job.shown_id},
                {"remote_block_ids", Shown(*params, "remote_block_ids")},
                {"remote_engine_id", Shown(*params, "remote_engine_id")},
                {"remote_host", Shown(*params, "remote_host")},
                {"remote_port", Shown(*params, "remote_port")}});
}

}  // namespace llmd::sidecar
