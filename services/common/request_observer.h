// What gateway and sidecar tell of their requests, whoever decides about them: the line in the
// access log, counts and times by route, model, endpoint and status, and spans. One for each loop;
// none of it waits, locks or, once its memory has grown, allocates. What is exported as a span does
// both, where the request is sampled.
#pragma once

#include <string_view>

#include "common/access_log.h"
#include "common/json_line.h"
#include "common/request_metrics.h"
#include "common/request_record.h"
#include "common/request_series.h"
#include "llmd/http/relay/policy.h"

namespace llmd::services {

// What the observers of all loops share; outlives them.
struct ObserverParts {
  RequestMetrics& metrics;
  AccessLog* access_log = nullptr;  // null = none
  Tracer* tracer = nullptr;         // null = nothing is traced
};

class RequestObserver {
 public:
  RequestObserver(const ObserverParts& parts, int loop);

  // In the order of a request's life; Sending to Cut as often as there are attempts.
  void Begin(RequestRecord& record, const relay::Call& call);
  void Refused(RequestRecord& record, const relay::Refusal& refusal);
  void Whole(RequestRecord& record, const relay::Call& call);
  // The next attempt. Gives the traceparent to send with it, "" = the one that stands.
  struct Leg {
    std::string_view span;           // what its span is called
    std::string_view name, address;  // of the endpoint
    std::string_view parent;         // a traceparent; "" = that of Trace
  };
  std::string_view Sending(RequestRecord& record, TimePoint now, const Leg& leg);
  // It has ended, and its answer is not for the client.
  void Collected(RequestRecord& record, int status);
  void Failed(RequestRecord& record, relay::Failure failure, std::string_view what);
  void Answering(RequestRecord& record, const http::ResponseView& head);
  void Piece(RequestRecord& record, TimePoint now, std::string_view piece, bool end);
  void Cut(RequestRecord& record, relay::Failure failure, std::string_view what);
  // `id`, `method` and `path` are logged as they are.
  void End(RequestRecord& record, const relay::Outcome& outcome, std::string_view id,
           std::string_view method, std::string_view path);

  // Where no Director does it: begins the request's span, called `span`.
  void Trace(RequestRecord& record, const relay::Call& call, std::string_view span,
             std::string_view id);
  // Begins the span of one question to a picker and gives the traceparent for it, "" = the
  // client's stands; ends it.
  std::string_view Asking(RequestRecord& record);
  void Asked(RequestRecord& record, std::string_view error);

  // A few times a second.
  void HandOver() { shard_.HandOver(); }

 private:
  void CountFailure(const RequestRecord& record, relay::Failure failure, std::string_view stage);
  RequestShard::Series& SeriesOf(RequestRecord& record, bool admit_model);
  void Count(RequestRecord& record, const relay::Outcome& outcome);
  void Log(const RequestRecord& record, const relay::Outcome& outcome, std::string_view id,
           std::string_view method, std::string_view path);
  void EndSpan(std::optional<Span>& span, std::string_view error);

  const ObserverParts& parts_;
  RequestShard shard_;
  NameCap::Reader models_, endpoints_;
  AccessLog::Lane* const lane_;
  JsonLine line_;
};

// The label of a path: itself when it is one of those that are known, else "other".
std::string_view RouteLabel(std::string_view path);

}  // namespace llmd::services
