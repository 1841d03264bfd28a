// The second half of a stream: the endpoint's answer on its way to the client.
#include "epp/header_number.h"
#include "epp/processor.h"

namespace llmd::epp {
void Processor::OnServed(std::string_view endpoint) {
  if (phase() == Phase::kRouted) director_.OnServed(state_, endpoint);
}

void Processor::PassLocalReply() {
  std::shared_ptr<sched::RequestState> queued;
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::kLocalReply;
    queued = std::move(state_);
  }
  if (queued) director_.Cancel(queued);
  bodies_ = Bodies::kEcho;
  EmitBare(Answer::Kind::kResponseHeaders);
}

void Processor::OnResponseHeaders(const HeaderList& headers, bool end_of_stream) {
  switch (phase()) {
    case Phase::kRefused:
      return;
    case Phase::kStart:
    case Phase::kBody:
    case Phase::kRouting:
      return PassLocalReply();
    case Phase::kRouted:
      break;
    default:
      return Violation("a second response_headers");
  }
  MoveTo(Phase::kResponse);
  EmitResponseHeaders(headers);
  if (end_of_stream) EndResponse();
}

void Processor::EmitResponseHeaders(const HeaderList& headers) {
  Answer answer;
  answer.kind = Answer::Kind::kResponseHeaders;
  // For the proxy to see that its picker saw the answer.
  answer.set_headers.emplace_back("x-went-into-resp-headers", "true");
  for (auto& line :
       director_.OnResponseHeaders(state_, FirstNumber<int>(headers, ":status"), headers))
    answer.set_headers.push_back(std::move(line));
  const bool wanted = options_.token_metrics || reads_response_;
  if (response_mode_ == BodyMode::kNone) {
    bodies_ = Bodies::kAbsent;
  } else if (!wanted) {
    bodies_ = Bodies::kAbsent;
    answer.skip_bodies = true;
  } else if (edits_response_) {
    answer.remove_headers.emplace_back("content-length");
  }
  if (bodies_ == Bodies::kAbsent) director_.OnResponseBodySkipped(state_);
  Emit(answer);
}

void Processor::OnResponseBody(std::string_view chunk, bool end_of_stream) {
  const Phase now = phase();
  if (now == Phase::kRefused) return;
  if (now == Phase::kDone) return PassOverChunk(chunk);
  if (now != Phase::kResponse && now != Phase::kLocalReply)
    return Violation("response_body out of order");
  // The proxy did not take the override: its chunks pass unread.
  if (bodies_ == Bodies::kAbsent) bodies_ = Bodies::kEcho;
  std::string replaced;
  bool changed = false;
  std::vector<sched::ReportedAttribute> report;
  if (bodies_ == Bodies::kRead) {
    changed = director_.OnResponseBody(state_, chunk, end_of_stream, &replaced);
    response_ended_ = end_of_stream;
    if (end_of_stream) report = director_.TakeReport(state_);
  }
  EmitResponseChunk(changed ? replaced : chunk, changed, end_of_stream, report);
  if (end_of_stream) EndResponse();
}

void Processor::PassOverChunk(std::string_view chunk) {
  PassOver("response_body");
  if (response_mode_ == BodyMode::kFullDuplex) return;
  // Elsewhere a proxy waits for the answer to each chunk; what came after the end goes no further.
  Answer answer;
  answer.kind = Answer::Kind::kResponseBody;
  answer.streamed = false;
  answer.unchanged = chunk.empty();
  Emit(answer);
}

void Processor::EmitResponseChunk(std::string_view chunk, bool changed, bool end_of_stream,
                                  std::span<const sched::ReportedAttribute> report) {
  if (response_mode_ == BodyMode::kFullDuplex)
    return EmitBody(Answer::Kind::kResponseBody, chunk, end_of_stream, report);
  Answer answer;
  answer.kind = Answer::Kind::kResponseBody;
  answer.streamed = false;
  answer.unchanged = !changed;
  answer.body = chunk;
  answer.report = report;
  Emit(answer);
}

void Processor::OnResponseTrailers() {
  const Phase now = phase();
  if (now == Phase::kRefused) return;
  if (now != Phase::kResponse && now != Phase::kLocalReply)
    return Violation("response_trailers out of order");
  std::string rest;  // held back for a name that might have gone on
  if (bodies_ == Bodies::kRead) {
    director_.OnResponseBody(state_, "", true, &rest);
    response_ended_ = true;
  }
  if (!rest.empty() && response_mode_ == BodyMode::kFullDuplex)
    EmitBody(Answer::Kind::kResponseBody, rest, false);
  EndResponse();
  Answer answer;
  answer.kind = Answer::Kind::kResponseTrailers;
  const std::vector<sched::ReportedAttribute> report = director_.TakeReport(state_);
  answer.report = report;
  Emit(answer);
}

void Processor::EndResponse() {
  std::string rest;
  if (phase() == Phase::kResponse && !std::exchange(response_ended_, true))
    director_.OnResponseBody(state_, "", true, &rest);
  MoveTo(Phase::kDone);
}

}  // namespace llmd::epp
