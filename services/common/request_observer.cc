#include "common/request_observer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/refusal_reason.h"

namespace llmd::services {
namespace {

constexpr std::array<std::string_view, 28> kRoutes = {
    "/",
    "/detokenize",
    "/health",
    "/healthz",
    "/inference/v1/generate",
    "/metrics",
    "/pooling",
    "/ready",
    "/readyz",
    "/rerank",
    "/score",
    "/tokenize",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/responses",
    "/v1/score",
    "/v2/rerank",
};

int64_t Now() {
  return SystemClock().UnixNanos();
}

Span MakeSpan(const TraceContext& context, uint64_t parent, std::string_view name,
              Span::Kind kind) {
  Span span;
  span.context = context;
  span.parent_span_id = parent;
  span.name = name;
  span.kind = kind;
  span.start_unix_nanos = Now();
  return span;
}

bool IsEventStream(const http::ResponseView& head) {
  return head.headers.Get(http::Known::kContentType).value_or("").starts_with("text/event-stream");
}

}  // namespace

std::string_view RouteLabel(std::string_view path) {
  const auto at = std::lower_bound(kRoutes.begin(), kRoutes.end(), path);
  return at != kRoutes.end() && *at == path ? *at : kOther;
}

void RequestRecord::Clear() {
  model.clear();
  client.clear();
  route = refusal = {};
  endpoint.clear();
  address.clear();
  trace_id.clear();
  attempts = 0;
  events = traced = false;
  body_bytes = 0;
  whole = sent = first_byte = last_piece = {};
  meter.Begin(false, true);
  series = nullptr;
  request.reset();
  asking.reset();
  attempt.reset();
  traceparent.clear();
}

RequestObserver::RequestObserver(const ObserverParts& parts, int loop)
    : parts_(parts),
      shard_(parts.metrics.series),
      models_(parts.metrics.models),
      endpoints_(parts.metrics.endpoints),
      lane_(parts.access_log == nullptr ? nullptr : &parts.access_log->lane(loop)) {}

void RequestObserver::Begin(RequestRecord& record, const relay::Call& call) {
  record.Clear();
  const http::RequestView& head = call.request();
  record.client.assign(call.peer());
  record.client_subject.assign(call.client_subject());
  record.route = head.target.empty() ? std::string_view() : RouteLabel(head.path());
  const auto parent = head.headers.Get("traceparent");
  if (parent && ParseTraceparent(*parent)) record.trace_id.assign(parent->substr(3, 32));
}

void RequestObserver::Refused(RequestRecord& record, const relay::Refusal& refusal) {
  const size_t reason = RefusalReason(refusal.status, refusal.message);
  record.refusal = kRefusalReasons[reason];
  parts_.metrics.Refused(reason);
}

void RequestObserver::Whole(RequestRecord& record, const relay::Call& call) {
  record.body_bytes = call.body().size();
  record.whole = call.now();
}

std::string_view RequestObserver::Sending(RequestRecord& record, TimePoint now, const Leg& leg) {
  EndSpan(record.attempt, "given up for another attempt");
  ++record.attempts;
  if (record.sent == TimePoint()) record.sent = now;
  record.endpoint.assign(leg.name);
  record.address.assign(leg.address);
  if (leg.parent.size() >= 35) record.trace_id.assign(leg.parent.substr(3, 32));
  if (parts_.tracer == nullptr) return {};
  const std::optional<TraceContext> over =
      record.traced ? std::optional(record.trace) : ParseTraceparent(leg.parent);
  if (!over || !over->sampled) return {};
  const TraceContext own = over->Child();
  record.attempt = MakeSpan(own, over->span_id, leg.span, Span::Kind::kClient);
  record.attempt->attributes = {{"server.address", std::string(leg.address)},
                                {"llm_d.endpoint", std::string(leg.name)},
                                {"llm_d.attempt", int64_t{record.attempts}}};
  record.traceparent = own.ToTraceparent();
  return record.traceparent;
}

void RequestObserver::Collected(RequestRecord& record, int status) {
  if (!record.attempt) return;
  record.attempt->attributes.emplace_back("http.response.status_code", int64_t{status});
  EndSpan(record.attempt, status < 400 ? std::string_view() : "an error was answered");
}

void RequestObserver::CountFailure(const RequestRecord& record, relay::Failure failure,
                                   std::string_view stage) {
  parts_.metrics.UpstreamFailed(endpoints_.Of(record.endpoint, true), relay::NameOf(failure),
                                stage);
}

void RequestObserver::Failed(RequestRecord& record, relay::Failure failure, std::string_view what) {
  CountFailure(record, failure, "before_answer");
  EndSpan(record.attempt, what);
}

void RequestObserver::Answering(RequestRecord& record, const http::ResponseView& head) {
  record.events = IsEventStream(head);
  record.meter.Begin(record.events, head.headers.Has(http::Known::kContentEncoding));
  // Names that clients make up become no labels: an engine has to know them.
  record.series = &SeriesOf(record, head.status < 400);
  if (record.attempt)
    record.attempt->attributes.emplace_back("http.response.status_code", int64_t{head.status});
}

void RequestObserver::Piece(RequestRecord& record, TimePoint now, std::string_view piece,
                            bool end) {
  if (!piece.empty()) {
    shard_.Touch(*record.series);
    if (record.first_byte == TimePoint()) {
      record.first_byte = now;
    } else if (record.events) {
      record.series->gap.Observe(now - record.last_piece);
    }
    record.last_piece = now;
    record.meter.Take(piece);
  }
  if (end) EndSpan(record.attempt, {});
}

void RequestObserver::Cut(RequestRecord& record, relay::Failure failure, std::string_view what) {
  CountFailure(record, failure, "within_answer");
  EndSpan(record.attempt, what);
}

RequestShard::Series& RequestObserver::SeriesOf(RequestRecord& record, bool admit_model) {
  return shard_.Of(
      {record.route, models_.Of(record.model, admit_model), endpoints_.Of(record.endpoint, true)});
}

void RequestObserver::Count(RequestRecord& record, const relay::Outcome& outcome) {
  RequestShard::Series& series =
      record.series != nullptr ? *record.series : SeriesOf(record, false);
  shard_.Touch(series);
  series.Request(outcome.status);
  series.whole.Observe(outcome.ended - outcome.received);
  if (record.attempts > 0) series.queue.Observe(record.sent - record.whole);
  if (record.first_byte != TimePoint()) series.ttft.Observe(record.first_byte - outcome.received);
  series.request_bytes.Add(static_cast<double>(record.body_bytes));
  series.response_bytes.Add(static_cast<double>(outcome.body_bytes));
  const AnswerMeter& meter = record.meter;
  if (meter.prompt_tokens() > 0) series.prompt_tokens.Add(double(meter.prompt_tokens()));
  if (meter.completion_tokens() <= 0) return;
  (meter.estimated() ? series.estimated_tokens : series.completion_tokens)
      .Add(static_cast<double>(meter.completion_tokens()));
}

void RequestObserver::End(RequestRecord& record, const relay::Outcome& outcome, std::string_view id,
                          std::string_view method, std::string_view path) {
  Count(record, outcome);
  if (lane_ != nullptr) Log(record, outcome, id, method, path);
  if (!record.request && !record.attempt && !record.asking) return;
  const std::string_view why = outcome.whole         ? std::string_view()
                               : outcome.client_gone ? "the client left"
                                                     : "the answer did not end";
  EndSpan(record.attempt, why);
  EndSpan(record.asking, why);
  if (!record.request) return;
  auto& attributes = record.request->attributes;
  attributes.emplace_back("http.response.status_code", int64_t{outcome.status});
  if (record.meter.prompt_tokens() >= 0)
    attributes.emplace_back("gen_ai.usage.input_tokens", record.meter.prompt_tokens());
  if (record.meter.completion_tokens() >= 0 && !record.meter.estimated())
    attributes.emplace_back("gen_ai.usage.output_tokens", record.meter.completion_tokens());
  EndSpan(record.request, why);
}

void RequestObserver::Log(const RequestRecord& record, const relay::Outcome& outcome,
                          std::string_view id, std::string_view method, std::string_view path) {
  line_.Begin(Now(), "access", "request");
  line_.Text("x-request-id", id);
  if (!record.trace_id.empty()) line_.Text("traceId", record.trace_id);
  line_.Text("client", record.client);
  if (!record.client_subject.empty()) line_.Text("clientSubject", record.client_subject);
  line_.Text("method", method);
  line_.Text("path", path);
  if (!record.route.empty()) line_.Text("route", record.route);
  if (!record.model.empty()) line_.Text("model", record.model);
  line_.Number("status", outcome.status);
  if (!record.endpoint.empty()) {
    line_.Text("endpoint", record.endpoint);
    line_.Text("address", record.address);
  }
  if (record.attempts > 0) {
    line_.Number("attempts", record.attempts);
    line_.Seconds("queueSeconds", record.sent - record.whole);
  }
  if (record.first_byte != TimePoint())
    line_.Seconds("ttftSeconds", record.first_byte - outcome.received);
  line_.Seconds("seconds", outcome.ended - outcome.received);
  line_.Number("requestBytes", static_cast<int64_t>(record.body_bytes));
  line_.Number("bytes", static_cast<int64_t>(outcome.body_bytes));
  const AnswerMeter& meter = record.meter;
  if (meter.prompt_tokens() >= 0) line_.Number("promptTokens", meter.prompt_tokens());
  if (meter.completion_tokens() >= 0) line_.Number("completionTokens", meter.completion_tokens());
  if (meter.estimated()) line_.Flag("estimated", true);
  if (!record.refusal.empty()) line_.Text("refused", record.refusal);
  if (outcome.cut) line_.Flag("cut", true);
  line_.Flag("clientGone", outcome.client_gone);
  lane_->Write(line_.End());
}

void RequestObserver::Trace(RequestRecord& record, const relay::Call& call, std::string_view span,
                            std::string_view id) {
  if (parts_.tracer == nullptr) return;
  const auto header = call.request().headers.Get("traceparent");
  const std::optional<TraceContext> parent =
      header ? ParseTraceparent(*header) : std::optional<TraceContext>();
  record.trace = parts_.tracer->Start(parent);
  record.traced = true;
  record.trace_id = record.trace.TraceIdHex();
  if (!record.trace.sampled) return;
  record.request = MakeSpan(record.trace, parent ? parent->span_id : 0, span, Span::Kind::kServer);
  record.request->attributes = {{"llm_d.request_id", std::string(id)},
                                {"url.path", std::string(call.request().path())}};
}

std::string_view RequestObserver::Asking(RequestRecord& record) {
  if (!record.traced) return {};
  const TraceContext own = record.trace.sampled ? record.trace.Child() : record.trace;
  if (record.trace.sampled) {
    EndSpan(record.asking, "asked again");
    record.asking =
        MakeSpan(own, record.trace.span_id, "gateway.request_orchestration", Span::Kind::kInternal);
  }
  record.traceparent = own.ToTraceparent();
  return record.traceparent;
}

void RequestObserver::Asked(RequestRecord& record, std::string_view error) {
  EndSpan(record.asking, error);
}

void RequestObserver::EndSpan(std::optional<Span>& span, std::string_view error) {
  if (!span) return;
  span->end_unix_nanos = Now();
  span->error = error;
  std::vector<Span> ended;
  ended.push_back(*std::exchange(span, std::nullopt));
  parts_.tracer->Submit(std::move(ended));
}

}  // namespace llmd::services
