// One ext_proc stream as a state machine without gRPC: Envoy's messages in, the answers to send
// out. It owns the request body, asks the Director once, and tells it how the response went. Wire
// rules: docs/wire/ext-proc.md.
//
// Events come from one thread at a time, in protocol order. Answers go to the sink in order, never
// under a lock, from the thread of the event or, when the request had to queue, from the thread on
// which the Director answers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/sched/director.h"
#include "llmd/status.h"

namespace llmd::epp {

using sched::HeaderList;

// One ProcessingResponse. Views hold until Emit returns.
struct Answer {
  enum class Kind {
    kRequestHeaders,
    kRequestBody,
    kRequestTrailers,
    kResponseHeaders,
    kResponseBody,
    kResponseTrailers,
    kImmediate,
  };
  Kind kind = Kind::kRequestHeaders;
  HeaderList set_headers;
  std::vector<std::string> remove_headers;
  bool clear_route_cache = false;
  std::string_view body;       // of a body piece or an immediate answer
  bool end_of_stream = false;  // of a body piece
  int status = 0;              // of an immediate answer
  std::string details;
  // Written as dynamic metadata envoy.lb when not empty.
  std::string destination;
  bool with_scores = false;
  std::vector<std::pair<std::string, double>> scores;
  // Written as dynamic metadata, each under its namespace.
  std::span<const sched::ReportedAttribute> report;
};

class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  virtual void Emit(const Answer& answer) = 0;
};

// The subset hint of a message's metadata.
struct SubsetHint {
  bool present = false;
  std::vector<std::string> endpoints;
};

struct ProcessorOptions {
  size_t max_body_bytes = 100 << 20;  // above: 413
  bool emit_endpoint_scores = false;
};

class Processor : public std::enable_shared_from_this<Processor> {
 public:
  // The director must outlive the processor. A sink that is gone is not an error: answers are
  // dropped.
  Processor(sched::Director& director, std::weak_ptr<AnswerSink> sink, ProcessorOptions options)
      : director_(director), options_(options), sink_(std::move(sink)) {}

  void OnSubsetHint(SubsetHint hint);
  void OnRequestHeaders(HeaderList headers, bool end_of_stream);
  void OnRequestBody(std::string chunk, bool end_of_stream);
  void OnRequestTrailers();
  // What the metadata of a response's headers says of the endpoint that answered; before them.
  void OnServed(std::string_view endpoint);
  void OnResponseHeaders(const HeaderList& headers, bool end_of_stream);
  void OnResponseBody(std::string_view chunk, bool end_of_stream);
  void OnResponseTrailers();
  // The stream ended, by either side. Idempotent; an unfinished request is cancelled at the
  // Director.
  void Close();

  // Largest body piece sent, a margin under the 64 KiB that some Envoys allow a chunk.
  static constexpr size_t kMaxPieceBytes = 62'000;

 private:
  enum class Phase { kStart, kBody, kRouting, kRouted, kResponse, kDone };

  void Route(bool has_body);
  void OnRouted(sched::Routing routing);
  void Deny(const sched::Denial& denial);
  void EmitRequest(const sched::Routing& routing);
  void EmitBody(Answer::Kind kind, std::string_view body, bool end_of_stream,
                std::span<const sched::ReportedAttribute> report = {});
  void EndResponse();
  void Emit(const Answer& answer);

  sched::Director& director_;
  const ProcessorOptions options_;

  std::mutex mutex_;  // guards closed_, phase_ and state_ between an event and a late routing
  std::weak_ptr<AnswerSink> sink_;
  bool closed_ = false;
  Phase phase_ = Phase::kStart;
  std::shared_ptr<sched::RequestState> state_;

  HeaderList headers_;
  std::string body_;
  SubsetHint hint_;
  bool has_body_ = false;
  bool ended_by_trailers_ = false;
  bool response_ended_ = false;
};

}  // namespace llmd::epp
