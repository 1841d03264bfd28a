#include "epp/processor.h"

#include <algorithm>
#include <unordered_set>

#include "common/body_edit.h"
#include "epp/header_number.h"

namespace llmd::epp {
namespace {

constexpr std::string_view kDestination = "x-gateway-destination-endpoint";
// A declared length is a promise only: more is taken as it comes.
constexpr size_t kMaxReserve = 1 << 20;
// Smaller bodies cost less to copy than to keep.
constexpr size_t kCopyBelowBytes = 4096;

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

std::string Join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ",") + part;
  return out;
}

}  // namespace

Processor::Phase Processor::phase() const {
  std::lock_guard lock(mutex_);
  return phase_;
}

void Processor::MoveTo(Phase phase) {
  std::lock_guard lock(mutex_);
  if (phase_ != Phase::kRefused) phase_ = phase;
}

void Processor::Emit(const Answer& answer) {
  if (const std::shared_ptr<AnswerSink> sink = sink_.lock()) sink->Emit(answer);
}

void Processor::EmitBare(Answer::Kind kind) {
  Answer answer;
  answer.kind = kind;
  Emit(answer);
}

void Processor::Violation(const char* what) {
  if (phase() == Phase::kRefused) return;
  Close();
  if (const std::shared_ptr<AnswerSink> sink = sink_.lock()) {
    sink->Abort(InvalidArgument(std::string("ext_proc: ") + what));
  }
}

// Some Envoys send the last message of a large body twice.
void Processor::PassOver(const char* what) {
  if (phase() == Phase::kRefused || std::exchange(told_of_excess_, true)) return;
  if (options_.on_excess) options_.on_excess(what);
}

void Processor::OnModes(BodyMode request, BodyMode response) {
  request_mode_ = request;
  response_mode_ = response;
}

void Processor::OnSubsetHint(SubsetHint hint) {
  if (hint.present || !hint.exclude.empty()) hint_ = std::move(hint);
}

void Processor::OnRequestHeaders(HeaderList headers, bool end_of_stream) {
  if (phase() != Phase::kStart) return Violation("a second request_headers");
  if (!end_of_stream && request_mode_ != BodyMode::kFullDuplex) {
    return Violation("request_body_mode must be FULL_DUPLEX_STREAMED");
  }
  headers_ = std::move(headers);
  MoveTo(Phase::kBody);
  if (end_of_stream) return Route(false);
  const auto declared = FirstNumber<size_t>(headers_, "content-length");
  if (declared <= options_.max_body_bytes) body_->reserve(std::min(declared, kMaxReserve));
}

void Processor::OnRequestBody(std::string_view chunk, bool end_of_stream) {
  const Phase now = phase();
  if (now == Phase::kStart) return Violation("request_body out of order");
  if (now != Phase::kBody) return PassOver("request_body");
  if (body_->size() + chunk.size() > options_.max_body_bytes) {
    sched::Denial denial;
    denial.http_status = 413;
    denial.message =
        "request body is larger than " + std::to_string(options_.max_body_bytes) + " bytes";
    return Deny(denial);
  }
  body_->append(chunk);
  if (end_of_stream) Route(true);
}

void Processor::OnRequestTrailers() {
  {
    std::lock_guard lock(mutex_);
    if (phase_ == Phase::kRouting || answering_) {
      trailers_due_ = true;
      return;
    }
  }
  switch (phase()) {
    case Phase::kBody:
      ended_by_trailers_ = true;
      return Route(true);
    case Phase::kStart:
      return Violation("request_trailers before request_headers");
    case Phase::kRefused:
      return;
    default:
      EmitBare(Answer::Kind::kRequestTrailers);
  }
}

std::vector<std::string> Processor::AllButExcluded() const {
  const std::unordered_set<std::string_view> excluded(hint_.exclude.begin(), hint_.exclude.end());
  std::vector<std::string> rest;
  for (const sched::EndpointInfo& endpoint : director_.Endpoints()) {
    std::string address = endpoint.HostPort();
    if (!excluded.contains(address)) rest.push_back(std::move(address));
  }
  return rest;
}

void Processor::Route(bool has_body) {
  has_body_ = has_body;
  MoveTo(Phase::kRouting);
  sched::RequestInput input;
  input.headers = &headers_;
  input.body = *body_;
  input.has_body = has_body;
  input.has_subset = hint_.present || !hint_.exclude.empty();
  input.subset = hint_.exclude.empty() ? hint_.endpoints : AllButExcluded();
  input.pool = pool_;
  // The Director keeps this as long as the request, which the processor keeps.
  input.evicted = [weak = weak_from_this()](const sched::Denial& denial) {
    if (const auto alive = weak.lock()) alive->OnEvicted(denial);
  };
  if (body_->size() >= ProcessorOptions::kLargeBody && options_.offload &&
      options_.offload([self = shared_from_this(), input] { self->Ask(input); }))
    return;
  Ask(std::move(input));
}

void Processor::Ask(sched::RequestInput input) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
  }
  std::shared_ptr<sched::RequestState> queued;
  input.state = &queued;
  auto self = shared_from_this();
  director_.Route(std::move(input),
                  [self](const sched::Routing& routing) { self->OnRouted(routing); });
  {
    std::lock_guard lock(mutex_);
    if (phase_ == Phase::kRouting) state_ = queued;
    if (!closed_) return;
  }
  if (queued) director_.Cancel(queued);
}

void Processor::OnRouted(const sched::Routing& routing) {
  bool wanted = false;
  {
    std::lock_guard lock(mutex_);
    wanted = phase_ == Phase::kRouting;
    if (wanted) {
      if (routing.ok) state_ = routing.state;
      reads_response_ = routing.reads_response;
      edits_response_ = routing.edits_response;
      phase_ = routing.ok ? Phase::kRouted : Phase::kRefused;
      answering_ = routing.ok;
    }
  }
  if (!wanted) {
    if (routing.state) director_.Cancel(routing.state);
    return;
  }
  if (!routing.ok) return Deny(routing.denial);
  EmitRequest(routing);
  body_.reset();
  bool trailers = ended_by_trailers_;
  {
    std::lock_guard lock(mutex_);
    answering_ = false;
    trailers |= trailers_due_;
  }
  if (trailers) EmitBare(Answer::Kind::kRequestTrailers);
  if (!routing.skip_response) return;
  std::string none;
  director_.OnResponseBody(state_, "", true, &none);
  {
    std::lock_guard lock(mutex_);
    state_.reset();
    phase_ = Phase::kRefused;  // what may still come is passed over
  }
  if (const std::shared_ptr<AnswerSink> sink = sink_.lock()) sink->EndAnswers();
}

void Processor::Deny(const sched::Denial& denial) {
  MoveTo(Phase::kRefused);
  EmitDenial(denial, "inference error: " + std::string(CodeName(denial.http_status)) + " - " +
                         denial.message);
}

void Processor::OnEvicted(const sched::Denial& denial) {
  {
    std::lock_guard lock(mutex_);
    if (phase_ != Phase::kRouted && phase_ != Phase::kResponse) return;
    phase_ = Phase::kRefused;  // Close cancels the request once the stream has ended
  }
  EmitDenial(denial, denial.message);
}

void Processor::EmitDenial(const sched::Denial& denial, std::string_view body) {
  Answer answer;
  answer.kind = Answer::Kind::kImmediate;
  answer.status = denial.http_status;
  answer.body = body;
  answer.details = denial.dropped_reason;
  answer.set_headers.emplace_back("content-type", "text/plain");
  if (!denial.dropped_reason.empty()) {
    answer.set_headers.emplace_back("x-llm-d-request-dropped-reason", denial.dropped_reason);
  }
  if (denial.retry_after_s > 0)
    answer.set_headers.emplace_back("retry-after", std::to_string(denial.retry_after_s));
  answer.set_headers.insert(answer.set_headers.end(), denial.headers.begin(), denial.headers.end());
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
  // Proxies differ in whether they set or remove first.
  for (const std::string& name : routing.remove_headers) {
    if (name != kDestination) head.remove_headers.push_back(name);
  }
  head.with_scores = options_.emit_endpoint_scores;
  head.scores = routing.scores;
  if (!has_body_) return Emit(head);
  std::shared_ptr<const std::string> owner = body_;
  if (!routing.body_edits.empty()) {
    owner = std::make_shared<const std::string>(services::ApplyEdits(*body_, routing.body_edits));
  }
  const std::string_view body = *owner;
  if (!body.empty() && !ended_by_trailers_)
    head.set_headers.emplace_back("content-length", std::to_string(body.size()));
  Emit(head);
  EmitBody(Answer::Kind::kRequestBody, body, !ended_by_trailers_, {},
           body.size() < kCopyBelowBytes ? nullptr : owner);
}

void Processor::EmitBody(Answer::Kind kind, std::string_view body, bool end_of_stream,
                         std::span<const sched::ReportedAttribute> report,
                         const std::shared_ptr<const void>& owner) {
  do {
    Answer piece;
    piece.kind = kind;
    piece.body_owner = owner;
    piece.body = body.substr(0, kMaxPieceBytes);
    body.remove_prefix(piece.body.size());
    piece.end_of_stream = end_of_stream && body.empty();
    if (piece.end_of_stream) piece.report = report;
    Emit(piece);
  } while (!body.empty());
}

void Processor::Close() {
  std::shared_ptr<sched::RequestState> unfinished;
  bool ended = false;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    ended = phase_ == Phase::kResponse && bodies_ == Bodies::kAbsent;
    if (phase_ != Phase::kDone) unfinished = std::move(state_);
    phase_ = Phase::kRefused;
  }
  if (!unfinished) return;
  if (!ended) return director_.Cancel(unfinished);
  std::string rest;
  director_.OnResponseBody(unfinished, "", true, &rest);
}

}  // namespace llmd::epp
