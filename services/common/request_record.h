// What is noted of one request on its way, for its line in the access log, its counts and its
// spans. See request_observer.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/answer_meter.h"
#include "common/request_series.h"
#include "llmd/clock.h"
#include "llmd/trace.h"
#include "llmd/tracing.h"

namespace llmd::services {

struct RequestRecord {
  // Whoever knows sets these.
  std::string model;           // that the request is sent for; "" = not known
  std::string client;          // its address; at first that of the connection
  std::string client_subject;  // of its certificate; "" = none

  // The observer's.
  std::string_view route;         // a literal
  std::string_view refusal;       // why the HTTP layer refused it; a literal
  std::string endpoint, address;  // of the last attempt: its name, "ip:port"
  std::string trace_id;           // 32 digits, or ""
  int attempts = 0;
  bool events = false;  // the answer is an event stream
  uint64_t body_bytes = 0;
  TimePoint whole{}, sent{}, first_byte{}, last_piece{};
  AnswerMeter meter;
  RequestShard::Series* series = nullptr;  // from the answer's head on
  // Of a sampled request, while they are open. With a Director there is the attempt's only.
  std::optional<Span> request, asking, attempt;
  TraceContext trace;  // what an attempt is a child of, where no Director says
  bool traced = false;
  std::string traceparent;  // for the picker or the engine

  void Clear();
};

}  // namespace llmd::services
