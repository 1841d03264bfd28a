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
  bool streamed =
      true;  // a body piece answers a duplex stream; false: one chunk of a STREAMED body
  bool unchanged = false;  // of a chunk of a STREAMED body: it passes as it is, `body` is not sent
  bool skip_bodies =
      false;  // of response headers: asks the proxy to keep the response body to itself
  HeaderList set_headers;
  std::vector<std::string> remove_headers;
  bool clear_route_cache = false;
  std::string_view body;  // of a body piece or an immediate answer
  // Keeps `body` where it is for as long as it is held; without one a sink copies.
  std::shared_ptr<const void> body_owner;
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
  // The peer broke the protocol or uses a mode that cannot be served: end the stream with it.
  virtual void Abort(const Status& status) = 0;
  // No answer follows: the stream may close once those before are sent.
  virtual void EndAnswers() {}
};

// How the proxy sends a body (Envoy's ProcessingMode.BodySendMode, same numbers).
enum class BodyMode { kNone, kStreamed, kBuffered, kBufferedPartial, kFullDuplex, kGrpc };

// The subset hint of a message's metadata.
struct SubsetHint {
  bool present = false;  // a subset was given, be it an empty one
  std::vector<std::string> endpoints;
  // Endpoints that are not to be picked; a subset beside them is for pickers that do not know this.
  std::vector<std::string> exclude;
};

struct ProcessorOptions {
  size_t max_body_bytes = 100 << 20;  // above: 413
  bool emit_endpoint_scores = false;
  // Read every response body, for the metrics of tokens, first chunks and sizes. False: only where
  // a plugin reads it or the client's model name must be put back.
  bool token_metrics = true;
  // Runs a job on another thread, false when it cannot: then the request is routed where it came.
  // For bodies of kLargeBody and more, whose reading would hold up the thread's other streams.
  std::function<bool(std::function<void()>)> offload = nullptr;
  static constexpr size_t kLargeBody = 1 << 20;
  // Told once a stream, from any thread, that a body went on after its end: "request_body" or
  // "response_body". What comes so is passed over.
  std::function<void(const char* what)> on_excess = nullptr;
};

class Processor : public std::enable_shared_from_this<Processor> {
 public:
  // The director must outlive the processor. A sink that is gone is not an error: answers are
  // dropped.
  Processor(sched::Director& director, std::weak_ptr<AnswerSink> sink, ProcessorOptions options)
      : director_(director), options_(std::move(options)), sink_(std::move(sink)) {}

  // What the stream's first message says about the proxy's configuration; without it both bodies
  // are taken for full duplex.
  void OnModes(BodyMode request, BodyMode response);
  // The pool that the proxy's configuration names (docs/wire/ext-proc.md); before all else.
  void OnPool(std::string pool) { pool_ = std::move(pool); }
  void OnSubsetHint(SubsetHint hint);
  void OnRequestHeaders(HeaderList headers, bool end_of_stream);
  void OnRequestBody(std::string_view chunk, bool end_of_stream);
  void OnRequestTrailers();
  // What the metadata of a response's headers says of the endpoint that answered; before them.
  void OnServed(std::string_view endpoint);
  void OnResponseHeaders(const HeaderList& headers, bool end_of_stream);
  void OnResponseBody(std::string_view chunk, bool end_of_stream);
  void OnResponseTrailers();
  // The message could not be read.
  void OnMalformed() { Violation("a malformed message"); }
  // The message has no content that is known here.
  void OnUnknown() { Violation("a message without a request"); }
  // Refuses the request whatever it is, before its first message.
  void Refuse(const sched::Denial& denial) { Deny(denial); }
  // The stream ended, by either side. Idempotent; an unfinished request is cancelled at the
  // Director. Where response bodies do not come here this is how a response's end is seen.
  void Close();

  // Largest body piece sent, a margin under the 64 KiB that some Envoys allow a chunk.
  static constexpr size_t kMaxPieceBytes = 62'000;

 private:
  enum class Phase {
    kStart,
    kBody,
    kRouting,
    kRouted,
    kResponse,
    kLocalReply,  // the proxy answers by itself: everything passes
    kDone,
    kRefused,  // denied, evicted, closed or aborted: what still comes is dropped; final
  };
  enum class Bodies { kRead, kEcho, kAbsent };  // of the response, as far as we go

  Phase phase() const;
  void MoveTo(Phase phase);
  void Route(bool has_body);
  void Ask(sched::RequestInput input);
  std::vector<std::string> AllButExcluded() const;
  void OnRouted(const sched::Routing& routing);
  void Deny(const sched::Denial& denial);
  // Flow control takes the request back; from any thread.
  void OnEvicted(const sched::Denial& denial);
  void EmitDenial(const sched::Denial& denial, std::string_view body);
  void Violation(const char* what);
  void PassOver(const char* what);
  void PassOverChunk(std::string_view chunk);
  void EmitRequest(const sched::Routing& routing);
  void EmitBody(Answer::Kind kind, std::string_view body, bool end_of_stream,
                std::span<const sched::ReportedAttribute> report = {},
                const std::shared_ptr<const void>& owner = nullptr);
  void EmitResponseChunk(std::string_view chunk, bool changed, bool end_of_stream,
                         std::span<const sched::ReportedAttribute> report);
  void EmitBare(Answer::Kind kind);
  void EmitResponseHeaders(const HeaderList& headers);
  void PassLocalReply();
  void EndResponse();
  void Emit(const Answer& answer);

  sched::Director& director_;
  const ProcessorOptions options_;

  const std::weak_ptr<AnswerSink> sink_;
  mutable std::mutex
      mutex_;  // guards the next seven between an event and a late routing or eviction
  bool closed_ = false;
  Phase phase_ = Phase::kStart;
  std::shared_ptr<sched::RequestState> state_;
  bool reads_response_ = false, edits_response_ = false;
  bool answering_ = false, trailers_due_ = false;  // the request's answer is being written

  HeaderList headers_;
  std::shared_ptr<std::string> body_ = std::make_shared<std::string>();
  SubsetHint hint_;
  std::string pool_;
  BodyMode request_mode_ = BodyMode::kFullDuplex, response_mode_ = BodyMode::kFullDuplex;
  Bodies bodies_ = Bodies::kRead;
  bool has_body_ = false;
  bool ended_by_trailers_ = false;
  bool response_ended_ = false;
  bool told_of_excess_ = false;
};

}  // namespace llmd::epp
