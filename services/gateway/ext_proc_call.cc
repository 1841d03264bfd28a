#include "gateway/ext_proc_call.h"

#include <algorithm>
#include <utility>

#include "common/body_model.h"
#include "gateway/ext_proc_policy.h"
#include "llmd/http/routing_headers.h"

namespace llmd::gateway {
namespace {

using Change = PickerAnswer::Change;
using Kind = PickerAnswer::Kind;
using Next = PickerStream::Next;

constexpr std::string_view kDestination = "x-gateway-destination-endpoint";
// Of a request's body: under the 4 MiB that a picker takes in one message, and at most so much of
// it waits for the picker at a time.
constexpr size_t kPieceBytes = 1 << 20;
// Of an answer's body, once the picker keeps it to itself: above, the engine is not read on.
constexpr size_t kMaxQueuedBytes = 256 << 10;
// For a client that is behind: above, the picker is not read on.
constexpr size_t kMaxUnsentBytes = 256 << 10;
constexpr size_t kMaxEndpoints = 64;
// A picker may put a body's worth of text into a request, not more.
constexpr size_t kMaxAddedBytes = 16 << 20;

grpc::ByteBuffer Message(const services::WireWriter& writer, std::string_view tail = {}) {
  grpc::Slice slices[2] = {grpc::Slice(writer.View().data(), writer.View().size()),
                           grpc::Slice(tail.data(), tail.size())};
  return grpc::ByteBuffer(slices, tail.empty() ? 1 : 2);
}

services::WireWriter& EmptyWriter() {
  static thread_local services::WireWriter writer;
  writer.Reset();
  return writer;
}

}  // namespace

void ExtProcCall::Begin(relay::Call& call) {
  call_ = &call;
  failed_.clear();
  asks_ = 0;
  last_failure_ = relay::Failure::kOurs;
  body_sent_ahead_ = paused_ = panic_ = excluded_ = asked_twice_ = tried_ = alone_ = timer_set_ =
      head_only_ = false;
  pipe_.Reset();
  state_ = State::kAsking;
  FindModel();
  policy_.observer().Trace(record, call, "gateway.request", PolicyBase::LoggedId(*this));
  if (policy_.PickerIsLost(call.now())) return Lost("gives no sign of life");
  Ask();
}

// For its counts and its line in the log: large bodies are not read for that.
void ExtProcCall::FindModel() {
  constexpr size_t kMaxReadBytes = 64 << 10;
  const std::string_view body = call_->body();
  if (record.model.empty() && body.size() <= kMaxReadBytes) services::ReadModel(body, record.model);
}

void ExtProcCall::Ask() {
  ++asks_;
  state_ = State::kAsking;
  body_sent_ = pieces_sent_ = pieces_back_ = same_bytes_ = 0;
  head_back_ = body_edited_ = false;
  body_back_ = !call_->has_body();
  edited_body_.clear();
  std::vector<std::string> exclude = failed_, subset;
  if (!panic_) policy_.book().AddThese(policy_.Ejected(), exclude);
  excluded_ = exclude.size() > failed_.size();
  if (visit->admission.served_in_part()) visit->admission.AppendEngines(false, exclude);
  if (!exclude.empty()) policy_.book().AddOthers(exclude, subset);
  AskedRequest asked;
  asked.head = &PolicyBase::HeadOf(*call_, *this);
  asked.tls = call_->tls();
  asked.has_body = call_->has_body();
  asked.request_id = id;
  asked.traceparent = policy_.observer().Asking(record);
  asked.exclude = exclude;
  asked.subset = subset;
  services::WireWriter& writer = EmptyWriter();
  WriteRequestHead(asked, writer);
  stream_ = policy_.client().Open(*this, Message(writer), writer.size(),
                                  asked.has_body ? Next::kSoon : Next::kOpen);
  owed_since_ = call_->now();
  if (stream_ == nullptr) return Lost("cannot be asked");
  if (asked.has_body) SendBody();
  Wait();
}

void ExtProcCall::SendBody() {
  const std::string_view body = call_->body();
  do {
    const std::string_view piece = body.substr(body_sent_, kPieceBytes);
    body_sent_ += piece.size();
    ++pieces_sent_;
    services::WireWriter& writer = EmptyWriter();
    WriteRequestPiece(piece.size(), body_sent_ == body.size(), writer);
    stream_->Send(Message(writer, piece), piece.size(), Next::kOpen);
    if (body_sent_ == body.size()) return;
  } while (!stream_->AskRoom(kPieceBytes / 2));
}

void ExtProcCall::OnPickerRoom() {
  if (state_ == State::kAsking && body_sent_ < call_->body().size()) return SendBody();
  // An answer that the picker keeps to itself: what was held for room is settled.
  if (state_ == State::kBody && pipe_.keeps() && !pipe_.sent_end())
    call_->Release({}, SIZE_MAX, false);
}

void ExtProcCall::OnPickerAnswer(std::string_view message) {
  PickerAnswer answer;
  if (!ReadAnswer(message, answer)) return Lost("sent a malformed message");
  owed_since_ = call_->now();
  if (answer.kind == Kind::kImmediate)
    return state_ == State::kAsking ? Denied(answer) : Evicted(answer);
  switch (state_) {
    case State::kAsking:
      return OnRouting(answer, message);
    case State::kHead:
      return OnHeadAnswer(answer);
    case State::kWhole:
    case State::kBody:
      if (answer.kind == Kind::kResponseBody && !pipe_.OnAnswer(answer))
        return Lost("answered what it was not sent");
      return;
    default:
      return;
  }
}

void ExtProcCall::OnPickerBatch() {
  if (state_ == State::kWhole && pipe_.ended()) return ForwardWhole();
  if (state_ != State::kBody) return;
  pipe_.Flush(*call_);
  if (call_ != nullptr && stream_ != nullptr && call_->unsent() > kMaxUnsentBytes) Pause();
}

void ExtProcCall::OnPickerEnd(bool clean, std::string_view why) {
  stream_.reset();
  if (state_ == State::kPassing || (state_ == State::kBody && pipe_.ended())) return;
  // A picker that needs nothing more of the answer ends the stream in order, as soon as after its
  // routing; the head may have been sent to it meanwhile.
  if (clean && state_ == State::kLeg) return;
  if (clean && state_ == State::kHead) return PassOn();
  if (clean && state_ == State::kWhole && pipe_.GoOnAlone(true)) return ForwardWhole();
  if (clean && state_ == State::kBody && pipe_.GoOnAlone(true)) {
    state_ = State::kPassing;
    return pipe_.Flush(*call_);
  }
  // One that is restarted breaks off what it has not decided, and can be asked again.
  if (state_ == State::kAsking && !std::exchange(asked_twice_, true)) return Ask();
  Lost(clean ? "ended the stream before it had answered" : why);
}

void ExtProcCall::OnRouting(const PickerAnswer& answer, std::string_view message) {
  if (answer.kind == Kind::kRequestHeaders) {
    ReadRouting(answer, message);
    head_back_ = true;
  } else if (answer.kind == Kind::kRequestBody) {
    OnReturnedBody(answer);
  }
  if (head_back_ && body_back_ && state_ == State::kAsking) Routed();
}

void ExtProcCall::ReadRouting(const PickerAnswer& answer, std::string_view message) {
  routing_.assign(message);
  PickerAnswer kept;  // the same, of our copy
  ReadAnswer(routing_, kept);
  edits_.clear();
  path_ = {};
  for (std::string_view name : http::kRoutingHeaders) edits_.push_back({name, {}, true});
  std::string_view destination = ReadDestination(kept.metadata);
  const auto sets = [&kept](std::string_view name) {
    bool found = false;
    EachSetHeader(kept.mutation,
                  [&](std::string_view set, std::string_view) { found |= set == name; });
    return found;
  };
  EachRemovedHeader(kept.mutation, [&](std::string_view name) {
    if (!sets(name)) edits_.push_back({name, {}, true});  // proxies differ in what they do first
  });
  EachSetHeader(kept.mutation, [&](std::string_view name, std::string_view value) {
    if (name == kDestination) {
      destination = value;
    } else if (name == ":path") {
      path_ = value;
    } else if (name.front() != ':') {
      edits_.push_back({name, value, false});
    }
  });
  edits_.push_back({"x-request-id", id, false});
  PolicyBase::AddRequestEdits(*this, edits_);
  endpoints_.clear();
  while (!destination.empty() && endpoints_.size() < kMaxEndpoints) {
    const size_t comma = std::min(destination.find(','), destination.size());
    const std::string_view address = destination.substr(0, comma);
    destination.remove_prefix(std::min(comma + 1, destination.size()));
    const auto target = relay::Target::Parse(address);
    if (!target.ok()) continue;
    endpoints_.push_back({*target, address});
    policy_.book().Learn(*target, address, call_->now());
  }
  EachScored(kept.metadata, [this](std::string_view address) {
    const auto target = relay::Target::Parse(address);
    if (target.ok()) policy_.book().Learn(*target, address, call_->now());
  });
}

// The body comes back in pieces, nearly always as it was: then the client's is sent on.
void ExtProcCall::OnReturnedBody(const PickerAnswer& answer) {
  if (body_back_) return;
  ++pieces_back_;
  if (answer.change == Change::kNone) {
    body_back_ = body_sent_ == call_->body().size() && pieces_back_ == pieces_sent_;
    return;
  }
  const std::string_view body = call_->body();
  if (!body_edited_) {
    if (body.substr(same_bytes_, answer.body.size()) == answer.body) {
      same_bytes_ += answer.body.size();
    } else {
      edited_body_.assign(body.substr(0, same_bytes_));
      body_edited_ = true;
    }
  }
  if (body_edited_) {
    if (edited_body_.size() + answer.body.size() > body.size() + kMaxAddedBytes)
      return Lost("returned a body that is too large");
    edited_body_.append(answer.body);
  }
  body_back_ = answer.change == Change::kStreamed
                   ? answer.end_of_stream
                   : body_sent_ == body.size() && pieces_back_ == pieces_sent_;
}

void ExtProcCall::Routed() {
  // What is not returned is left out.
  if (call_->has_body() && !body_edited_ && same_bytes_ > 0 && same_bytes_ < call_->body().size()) {
    edited_body_.assign(call_->body().substr(0, same_bytes_));
    body_edited_ = true;
  }
  policy_.metrics().Asked(call_->now() - call_->received());
  policy_.observer().Asked(record, {});
  if (endpoints_.empty()) {
    DropStream(false);
    return Refuse(503, "the endpoint picker named no endpoint");
  }
  tried_ = false;
  TryNext();
}

void ExtProcCall::OnResponseHead(const http::ResponseView& head) {
  if (policy_.Betters(*call_, *this, head)) return;
  const auto length = head.headers.Get(http::Known::kContentLength);
  head_only_ = head.status == 204 || head.status == 304 || (length && *length == "0") ||
               call_->request().method == "HEAD";
  if (stream_ == nullptr) return PassOn();
  state_ = State::kHead;
  services::WireWriter& writer = EmptyWriter();
  WriteResponseHead(head, endpoint, head_only_, writer);
  // A whole answer saves the picker, and us, a turn.
  const std::string_view whole = head_only_ ? std::string_view() : call_->whole_body();
  body_sent_ahead_ = !whole.empty();
  stream_->Send(Message(writer), writer.size(), body_sent_ahead_ ? Next::kSoon : Next::kOpen);
  if (body_sent_ahead_) stream_->Send(pipe_.Take(whole, true), whole.size(), Next::kNone);
  owed_since_ = call_->now();
  Wait();
}

void ExtProcCall::OnHeadAnswer(const PickerAnswer& answer) {
  if (answer.kind != Kind::kResponseHeaders) return;
  const bool alone = head_only_ || answer.leaves_body_alone;
  if (alone) {
    state_ = State::kPassing;
    return Forward(relay::BodyMode::kWatch, answer.mutation);
  }
  if (const std::string_view whole = call_->whole_body(); !body_sent_ahead_ && !whole.empty()) {
    body_sent_ahead_ = true;
    stream_->Send(pipe_.Take(whole, true), whole.size(), Next::kNone);
  }
  if (!body_sent_ahead_) {
    state_ = State::kBody;
    return Forward(relay::BodyMode::kEdit, answer.mutation);
  }
  state_ = State::kWhole;
  head_mutation_.assign(answer.mutation);
}

// The picker has had its say on all of the answer: what it left as it was keeps its framing.
void ExtProcCall::ForwardWhole() {
  const bool unchanged = pipe_.unchanged(call_->whole_body().size());
  state_ = unchanged ? State::kPassing : State::kBody;
  Forward(unchanged ? relay::BodyMode::kWatch : relay::BodyMode::kEdit, head_mutation_);
  if (!unchanged) pipe_.Flush(*call_);
}

void ExtProcCall::Forward(relay::BodyMode mode, std::string_view mutation) {
  std::vector<relay::HeaderEdit> edits;
  EachRemovedHeader(mutation, [&](std::string_view name) { edits.push_back({name, {}, true}); });
  EachSetHeader(mutation, [&](std::string_view name, std::string_view value) {
    // Says only that the picker has seen the answer.
    if (name.front() != ':' && name != "x-went-into-resp-headers")
      edits.push_back({name, value, false});
  });
  edits.push_back({"x-request-id", id, false});
  edits.push_back({http::kUpstreamFailure, {}, true});
  PolicyBase::AddAnswerEdits(*this, edits);
  policy_.Passes(*call_, *this);
  call_->Forward(edits, mode);
}

void ExtProcCall::PassOn() {
  state_ = State::kPassing;
  Forward(relay::BodyMode::kWatch, {});
}

relay::Piece ExtProcCall::OnResponseBytes(std::string_view piece, bool end) {
  if (state_ != State::kBody || stream_ == nullptr) return {piece};
  if (body_sent_ahead_) return {{}, true};
  if (piece.empty() && !end) return {};
  if (!pipe_.owes()) owed_since_ = call_->now();
  stream_->Send(pipe_.Take(piece, end), piece.size(), end ? Next::kNone : Next::kOpen);
  Wait();
  if (!pipe_.keeps() || end) return {{}, true};
  return {{}, stream_->AskRoom(kMaxQueuedBytes)};
}

void ExtProcCall::End(bool whole) {
  DropStream(whole && (state_ == State::kPassing || pipe_.ended()));
  state_ = State::kOver;
  call_ = nullptr;
  edited_body_.clear();
  if (edited_body_.capacity() > kPieceBytes) edited_body_.shrink_to_fit();
}

}  // namespace llmd::gateway
