#include "epp/processor.h"

#include <algorithm>
#include <charconv>

#include "common/body_edit.h"

namespace llmd::epp {
namespace {

constexpr std::string_view kDestination = "x-gateway-destination-endpoint";

std::string_view CodeName(int http_status) {
  switch (http_status) {
    case 400:
      return "BadRequest";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "NotFound";
    case 412:
      return "PreconditionFailed";
    case 413:
      return "PayloadTooLarge";
    case 429:
      return "ResourceExhausted";
    case 503:
      return "ServiceUnavailable";
    default:
      return "Internal";
  }
}

int StatusOf(const HeaderList& headers) {
  for (const auto& [name, value] : headers) {
    int status = 0;
    if (name == ":status" &&
        std::from_chars(value.data(), value.data() + value.size(), status).ec == std::errc()) {
      return status;
    }
  }
  return 0;
}

size_t DeclaredLength(const HeaderList& headers) {
  for (const auto& [name, value] : headers) {
    size_t length = 0;
    if (name == "content-length" &&
        std::from_chars(value.data(), value.data() + value.size(), length).ec == std::errc()) {
      return length;
    }
  }
  return 0;
}

std::string Join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ",") + part;
  return out;
}

}  // namespace

void Processor::Emit(const Answer& answer) {
  if (const std::shared_ptr<AnswerSink> sink = sink_.lock()) sink->Emit(answer);
}

void Processor::OnSubsetHint(SubsetHint hint) {
  if (hint.present) hint_ = std::move(hint);
}

void Processor::OnRequestHeaders(HeaderList headers, bool end_of_stream) {
  if (phase_ != Phase::kStart) return;
  headers_ = std::move(headers);
  phase_ = Phase::kBody;
  if (end_of_stream) return Route(false);
  const size_t declared = DeclaredLength(headers_);
  if (declared <= options_.max_body_bytes) body_.reserve(declared);
}

void Processor::OnRequestBody(std::string chunk, bool end_of_stream) {
  if (phase_ != Phase::kBody) return;
  if (body_.size() + chunk.size() > options_.max_body_bytes) {
    sched::Denial denial;
    denial.http_status = 413;
    denial.message =
        "request body is larger than " + std::to_string(options_.max_body_bytes) + " bytes";
    return Deny(denial);
  }
  if (body_.empty()) {
    body_ = std::move(chunk);
  } else {
    body_.append(chunk);
  }
  if (end_of_stream) Route(true);
}

void Processor::OnRequestTrailers() {
  if (phase_ == Phase::kBody) {
    ended_by_trailers_ = true;
    return Route(true);
  }
  if (phase_ != Phase::kRouted) return;
  Answer answer;
  answer.kind = Answer::Kind::kRequestTrailers;
  Emit(answer);
}

void Processor::Route(bool has_body) {
  has_body_ = has_body;
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::kRouting;
  }
  sched::RequestInput input;
  input.headers = &headers_;
  input.body = body_;
  input.has_body = has_body;
  input.has_subset = hint_.present;
  input.subset = hint_.endpoints;
  std::shared_ptr<sched::RequestState> queued;
  input.state = &queued;
  auto self = shared_from_this();
  director_.Route(std::move(input),
                  [self](sched::Routing routing) { self->OnRouted(std::move(routing)); });
  {
    std::lock_guard lock(mutex_);
    if (phase_ == Phase::kRouting) state_ = queued;
    if (!closed_) return;
  }
  if (queued) director_.Cancel(queued);
}

void Processor::OnRouted(sched::Routing routing) {
  bool closed = false;
  {
    std::lock_guard lock(mutex_);
    closed = closed_;
    state_ = routing.state;
    phase_ = routing.ok && !closed ? Phase::kRouted : Phase::kDone;
  }
  if (closed) {
    if (routing.state) director_.Cancel(routing.state);
    return;
  }
  if (!routing.ok) return Deny(routing.denial);
  EmitRequest(routing);
  body_ = std::string();
}

void Processor::Deny(const sched::Denial& denial) {
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::kDone;
  }
  Answer answer;
  answer.kind = Answer::Kind::kImmediate;
  answer.status = denial.http_status;
  const std::string body =
      "inference error: " + std::string(CodeName(denial.http_status)) + " - " + denial.message;
  answer.body = body;
  answer.details = denial.dropped_reason;
  answer.set_headers.emplace_back("content-type", "text/plain");
  if (!denial.dropped_reason.empty()) {
    answer.set_headers.emplace_back("x-llm-d-request-dropped-reason", denial.dropped_reason);
  }
  if (denial.retry_after_s > 0)
    answer.set_headers.emplace_back("retry-after", std::to_string(denial.retry_after_s));
  Emit(answer);
}

void Processor::EmitRequest(const sched::Routing& routing) {
  Answer head;
  head.kind = Answer::Kind::kRequestHeaders;
  head.clear_route_cache = true;
  head.destination = Join(routing.endpoints);
  head.set_headers.emplace_back(kDestination, head.destination);
  head.set_headers.insert(head.set_headers.end(), routing.set_headers.begin(),
                          routing.set_headers.end());
  head.remove_headers = routing.remove_headers;
  head.with_scores = options_.emit_endpoint_scores;
  head.scores = routing.scores;
  Emit(head);
  if (!has_body_) return;
  if (routing.body_edits.empty()) {
    EmitBody(Answer::Kind::kRequestBody, body_, !ended_by_trailers_);
  } else {
    EmitBody(Answer::Kind::kRequestBody, services::ApplyEdits(body_, routing.body_edits),
             !ended_by_trailers_);
  }
  if (!ended_by_trailers_) return;
  Answer trailers;
  trailers.kind = Answer::Kind::kRequestTrailers;
  Emit(trailers);
}

void Processor::EmitBody(Answer::Kind kind, std::string_view body, bool end_of_stream,
                         std::span<const sched::ReportedAttribute> report) {
  do {
    Answer piece;
    piece.kind = kind;
    piece.body = body.substr(0, kMaxPieceBytes);
    body.remove_prefix(piece.body.size());
    piece.end_of_stream = end_of_stream && body.empty();
    if (piece.end_of_stream) piece.report = report;
    Emit(piece);
  } while (!body.empty());
}

void Processor::OnServed(std::string_view endpoint) {
  if (phase_ == Phase::kRouted) director_.OnServed(state_, endpoint);
}

void Processor::OnResponseHeaders(const HeaderList& headers, bool end_of_stream) {
  if (phase_ != Phase::kRouted) return;
  phase_ = Phase::kResponse;
  Answer answer;
  answer.kind = Answer::Kind::kResponseHeaders;
  answer.set_headers = director_.OnResponseHeaders(state_, StatusOf(headers), headers);
  answer.set_headers.emplace_back("x-went-into-resp-headers", "true");
  Emit(answer);
  if (end_of_stream) EndResponse();
}

void Processor::OnResponseBody(std::string_view chunk, bool end_of_stream) {
  if (phase_ != Phase::kResponse) return;
  std::string replaced;
  if (director_.OnResponseBody(state_, chunk, end_of_stream, &replaced)) chunk = replaced;
  std::vector<sched::ReportedAttribute> report;
  if (end_of_stream) {
    response_ended_ = true;
    report = director_.TakeReport(state_);
  }
  EmitBody(Answer::Kind::kResponseBody, chunk, end_of_stream, report);
  if (end_of_stream) EndResponse();
}

void Processor::OnResponseTrailers() {
  if (phase_ != Phase::kResponse) return;
  EndResponse();
  const std::vector<sched::ReportedAttribute> report = director_.TakeReport(state_);
  Answer answer;
  answer.kind = Answer::Kind::kResponseTrailers;
  answer.report = report;
  Emit(answer);
}

void Processor::EndResponse() {
  if (!response_ended_) director_.OnResponseBody(state_, "", true, nullptr);
  response_ended_ = true;
  std::lock_guard lock(mutex_);
  phase_ = Phase::kDone;
}

void Processor::Close() {
  std::shared_ptr<sched::RequestState> unfinished;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    if (phase_ != Phase::kDone) unfinished = std::move(state_);
    phase_ = Phase::kDone;
  }
  if (unfinished) director_.Cancel(unfinished);
}

}  // namespace llmd::epp
