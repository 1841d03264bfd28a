// The upstream's answer on its way to the client, or to the policy.
#include <algorithm>
#include <array>
#include <utility>

#include "http/relay/call_impl.h"
#include "http/relay/client.h"
#include "http/relay/head_writer.h"
#include "http/relay/upstream.h"

namespace llmd::relay {
namespace {

constexpr int kMaxInformational = 32;
constexpr size_t kMaxParts = 60;  // above: gathered in one piece
// A line of an event stream that has only begun waits so long for its rest, so that a stream that
// breaks off within it can be ended by an event of its own.
constexpr Duration kLineWait = std::chrono::milliseconds(50);
constexpr size_t kMaxLineBytes = 64 * 1024;
constexpr std::string_view kLastChunk = "0\r\n\r\n";
constexpr std::string_view kCrlf = "\r\n";
constexpr std::string_view kComment = ":\n\n";
// Of a body whose head waits for Forward.
constexpr size_t kReadOnBytes = 64 * 1024;

bool StartsWithIgnoringCase(std::string_view text, std::string_view start) {
  return text.size() >= start.size() && http::EqualsIgnoreCase(text.substr(0, start.size()), start);
}

bool IsPlainEventStream(const http::HeaderLines& headers) {
  const std::string_view coding = headers.Get(http::Known::kContentEncoding).value_or("");
  if (!coding.empty() && !http::EqualsIgnoreCase(coding, "identity")) return false;
  return StartsWithIgnoringCase(headers.Get(http::Known::kContentType).value_or(""),
                                "text/event-stream");
}

}  // namespace

bool CallImpl::wants_bytes() const {
  switch (phase_) {
    case Phase::kLeg:
    case Phase::kCollecting:
      return true;
    case Phase::kHead:
      return answer_.declares_length && answer_.declared_length <= kReadOnBytes &&
             held_head_bytes_ > 0 &&
             upstream_->received().size() - held_head_bytes_ < answer_.declared_length;
    case Phase::kRelaying:
      return !paused_ && unsettled_ <= loop_.options().max_held_bytes;
    default:
      return false;
  }
}

size_t CallImpl::OnUpstreamBytes(std::string_view bytes) {
  size_t used = 0;
  if (phase_ == Phase::kLeg) used = ReadAnswerHead(bytes);
  if (phase_ == Phase::kRelaying) return used + RelayBody(bytes.substr(used));
  if (phase_ == Phase::kCollecting) return used + Gather(bytes.substr(used));
  return used;
}

// What of the bytes is used up: informational heads, and the answer's where it goes on at once.
size_t CallImpl::ReadAnswerHead(std::string_view bytes) {
  size_t used = 0;
  while (true) {
    const std::string_view rest = bytes.substr(used);
    if (!scanner_.Feed(rest)) {
      if (!scanner_.error().ok())
        OnLegFailed(Failure::kProtocol,
                    "did not answer with HTTP: " + std::string(scanner_.error().message));
      return used;
    }
    const std::string_view head = rest.substr(0, scanner_.head_bytes());
    if (const http::WireError error = http::ReadResponseHead(head, leg_to_head_, &answer_);
        !error.ok()) {
      OnLegFailed(Failure::kProtocol, "malformed answer: " + std::string(error.message));
      return used;
    }
    if (answer_.view.status >= 200)
      return StartAnswer(head, rest.substr(head.size())) ? used + head.size() : used;
    if (answer_.view.status == 101 || ++informational_ > kMaxInformational) {
      OnLegFailed(Failure::kProtocol, "unexpected status " + std::to_string(answer_.view.status));
      return used;
    }
    used += head.size();
    scanner_ = http::HeadScanner(
        {loop_.options().server.max_head_bytes, loop_.options().server.max_headers});
  }
}

// True when the head is used up. `behind` it bytes of the body may have come.
bool CallImpl::StartAnswer(std::string_view head, std::string_view behind) {
  decoder_ = http::BodyDecoder(answer_.framing);
  if (leg_.collect_bytes > 0) {
    BeginCollecting(head);
    return true;
  }
  phase_ = Phase::kHead;
  held_head_bytes_ = 0;
  head_text_ = head;
  Upstream* const asked = upstream_;
  const bool whole = answer_.framing.kind == http::Framing::Kind::kLength &&
                     answer_.declares_length && answer_.declared_length <= behind.size();
  whole_body_ = whole ? behind.substr(0, answer_.declared_length) : std::string_view();
  loop_.policy().OnResponseHead(*this, answer_.view);
  head_text_ = whole_body_ = {};
  if ((phase_ == Phase::kRelaying || phase_ == Phase::kCollecting) && upstream_ == asked)
    return true;
  if (phase_ == Phase::kHead) held_head_bytes_ = head.size();
  return false;
}

void CallImpl::BeginCollecting(std::string_view head) {
  phase_ = Phase::kCollecting;
  collected_head_.assign(head);
  (void)http::ReadResponseHead(collected_head_, leg_to_head_, &answer_);
}

void CallImpl::Collect(size_t bytes) {
  if (phase_ != Phase::kHead || head_text_.empty()) return;
  leg_.collect_bytes = bytes;
  BeginCollecting(head_text_);
}

std::string_view CallImpl::whole_body() const {
  if (!whole_body_.empty() || phase_ != Phase::kHead || held_head_bytes_ == 0) return whole_body_;
  const std::string_view body = upstream_->received().substr(held_head_bytes_);
  const bool whole = answer_.framing.kind == http::Framing::Kind::kLength &&
                     answer_.declares_length && answer_.declared_length <= body.size();
  return whole ? body.substr(0, answer_.declared_length) : std::string_view();
}

void CallImpl::UpstreamBytesMoved(const char* from, const char* to) {
  if (phase_ != Phase::kHead) return;
  const auto move = [from, to](std::string_view& view) {
    if (!view.empty()) view = {to + (view.data() - from), view.size()};
  };
  move(answer_.view.reason);
  for (http::HeaderLine& line : answer_.lines) {
    move(line.name);
    move(line.value);
  }
}

http::ResponseFraming CallImpl::FrameAnswer(BodyMode mode) {
  using Kind = http::Framing::Kind;
  const bool to_head = head_.view.method == "HEAD";
  http::ResponseFraming framing;
  framing.length = answer_.declared_length;
  const int status = answer_.view.status;
  if (to_head || answer_.bodyless) {
    framing_ = Body::kNone;
    const bool tells = answer_.declares_length && (to_head || status == 304);
    framing.body = tells ? Body::kLength : Body::kNone;
  } else if (mode != BodyMode::kEdit && answer_.framing.kind != Kind::kChunked &&
             answer_.framing.kind != Kind::kUntilClose) {
    framing.body = framing_ = Body::kLength;
  } else {
    framing.body = framing_ = head_.view.version_minor == 0 ? Body::kUntilClose : Body::kChunked;
  }
  keep_ = head_.keep_alive && framing_ != Body::kUntilClose && keep_client();
  framing.persist = PersistLine(keep_);
  return framing;
}

void CallImpl::Forward(std::span<const HeaderEdit> edits, BodyMode mode) {
  if (phase_ != Phase::kHead || client_ == nullptr) return;
  phase_ = Phase::kRelaying;
  mode_ = mode;
  event_stream_ = IsPlainEventStream(answer_.view.headers);
  const http::ResponseFraming framing = FrameAnswer(mode);
  WriteAnswerHead(answer_.view, edits, framing, &pending_head_);
  outcome_.status = answer_.view.status;
  outcome_.head_sent = loop_.now();
  upstream_->ForgetRequest();
  leg_body_.clear();
  client_->ReleaseRequest();
  if (held_head_bytes_ == 0) return;  // within OnResponseHead: its caller goes on
  upstream_->Consume(std::exchange(held_head_bytes_, 0));
  upstream_->Resume();
}

size_t CallImpl::Gather(std::string_view bytes) {
  size_t used = 0;
  while (true) {
    size_t framing = 0;
    std::string_view piece;
    const auto state = decoder_.Next(bytes.substr(used), &framing, &piece);
    used += framing + piece.size();
    switch (state) {
      case http::BodyDecoder::State::kPiece:
        if (collected_.size() + piece.size() > leg_.collect_bytes) {
          OnLegFailed(Failure::kOurs, "the answer is over the limit of " +
                                          std::to_string(leg_.collect_bytes) + " bytes");
          return used;
        }
        collected_.Append(loop_.buffers(), piece);
        break;
      case http::BodyDecoder::State::kMore:
        return used;
      case http::BodyDecoder::State::kBad:
        OnLegFailed(Failure::kProtocol, "malformed chunked body");
        return used;
      case http::BodyDecoder::State::kEnd:
        LegDone(bytes.size() - used);
        return used;
    }
  }
}

void CallImpl::LegDone(size_t left) {
  if (upstream_ != nullptr)
    std::exchange(upstream_, nullptr)->Done(answer_.keep_alive && left == 0);
  if (phase_ != Phase::kCollecting) return;
  phase_ = Phase::kDeciding;
  // The hook may start another leg, which collects anew.
  const Buffer body = std::move(collected_);
  loop_.policy().OnCollected(*this, answer_.view, body.view());
}

size_t CallImpl::RelayBody(std::string_view bytes) {
  std::vector<std::string_view>& pieces = loop_.pieces_scratch();
  pieces.clear();
  const bool from_boundary = decoder_.at_boundary();
  size_t used = 0;
  auto state = http::BodyDecoder::State::kPiece;
  while (state == http::BodyDecoder::State::kPiece) {
    size_t framing = 0;
    std::string_view piece;
    state = decoder_.Next(bytes.substr(used), &framing, &piece);
    used += framing + piece.size();
    if (!piece.empty()) pieces.push_back(piece);
  }
  const bool ended = state == http::BodyDecoder::State::kEnd;
  const bool whole_chunks = state != http::BodyDecoder::State::kBad && from_boundary &&
                            decoder_.at_boundary() && !decoder_.TakeOddities();
  if (ended) {
    upstream_ended_ = true;
    std::exchange(upstream_, nullptr)->Done(answer_.keep_alive && used == bytes.size());
  }
  if (mode_ == BodyMode::kEdit) {
    Edit(pieces, ended);
  } else if (mode_ == BodyMode::kPass || Show(pieces, ended)) {
    const bool was_held = !line_.empty();
    HoldLine(&pieces, ended);
    const bool as_it_came = whole_chunks && !was_held && line_.empty() &&
                            framing_ == Body::kChunked &&
                            decoder_.framing().kind == http::Framing::Kind::kChunked;
    if (as_it_came) {
      SendChunks(pieces, bytes.substr(0, used));
    } else {
      SendContent(pieces, ended);
    }
    if (ended) FinishAnswer();
  }
  if (state == http::BodyDecoder::State::kBad && phase_ == Phase::kRelaying)
    OnLegFailed(Failure::kProtocol, "malformed chunked body");
  return used;
}

// Shows the policy what passes; false when it ended the answer meanwhile.
bool CallImpl::Show(const std::vector<std::string_view>& pieces, bool end) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    (void)loop_.policy().OnResponseBytes(*this, pieces[i], end && i + 1 == pieces.size());
    if (phase_ != Phase::kRelaying) return false;
  }
  if (end && pieces.empty()) (void)loop_.policy().OnResponseBytes(*this, {}, true);
  return phase_ == Phase::kRelaying;
}

void CallImpl::Edit(const std::vector<std::string_view>& pieces, bool end) {
  bool held = unsettled_ > 0;
  std::string& out = loop_.flat_scratch();
  out.clear();
  const size_t hooks = std::max<size_t>(pieces.size(), end ? 1 : 0);
  for (size_t i = 0; i < hooks; ++i) {
    const std::string_view shown = i < pieces.size() ? pieces[i] : std::string_view();
    const Piece piece = loop_.policy().OnResponseBytes(*this, shown, end && i + 1 == hooks);
    if (phase_ != Phase::kRelaying) return;
    out.append(piece.send);
    if (piece.held) unsettled_ += shown.size();
    held |= piece.held;
  }
  const bool last = end && !held;
  std::vector<std::string_view> edited;
  if (!out.empty()) edited.push_back(out);
  HoldLine(&edited, last);
  SendContent(edited, last);
  if (last) FinishAnswer();
}

void CallImpl::Release(std::string_view bytes, size_t covers, bool last) {
  if (phase_ != Phase::kRelaying) return;
  unsettled_ -= std::min(covers, unsettled_);
  std::vector<std::string_view> pieces;
  if (!bytes.empty()) pieces.push_back(bytes);
  HoldLine(&pieces, last);
  SendContent(pieces, last);
  if (last) return FinishAnswer();
  if (upstream_ != nullptr && !paused_) upstream_->Resume();
}

// Keeps back the line that an event stream's bytes end within, in front of which stands what was
// kept back before.
void CallImpl::HoldLine(std::vector<std::string_view>* pieces, bool end) {
  if (!event_stream_ || framing_ == Body::kNone || framing_ == Body::kLength) return;
  if (line_.empty()) {
    if (end || pieces->empty()) return;
    const char last = pieces->back().back();
    if (last == '\n' || last == '\r') return;  // the usual case
  }
  std::string& all = loop_.flat_scratch();
  std::string joined = std::move(line_);
  for (std::string_view piece : *pieces) joined.append(piece);
  line_.clear();
  const size_t whole = end || joined.size() > kMaxLineBytes ? joined.size() : WholeLines(joined);
  line_.assign(joined, whole, std::string::npos);
  joined.resize(whole);
  all = std::move(joined);
  pieces->clear();
  if (!all.empty()) pieces->push_back(all);
  if (line_.empty()) return loop_.wheel().Clear(line_timer_);
  if (!line_timer_.set()) loop_.wheel().Set(line_timer_, loop_.now() + kLineWait);
}

void CallImpl::FlushLine() {
  if (phase_ != Phase::kRelaying || line_.empty()) return;
  const std::string line = std::move(line_);
  line_.clear();
  const std::array<std::string_view, 1> pieces = {line};
  SendContent(pieces, false);
}

// A client, or what stands between, that hears nothing for long may take the stream for dead.
void CallImpl::ArmHeartbeat() {
  const Duration every = loop_.options().sse_heartbeat;
  if (every > Duration::zero()) loop_.wheel().Set(heartbeat_timer_, loop_.now() + every);
}

void CallImpl::Heartbeat() {
  if (phase_ != Phase::kRelaying || framing_ == Body::kLength) return;
  const bool between_events = line_.empty() && tail_.Closing().empty();
  if (!between_events || client_->behind()) return ArmHeartbeat();
  const std::array<std::string_view, 1> pieces = {kComment};
  SendContent(pieces, false);
}

void CallImpl::SendContent(std::span<const std::string_view> pieces, bool end) {
  std::array<std::string_view, kMaxParts + 4> parts;
  size_t count = 0, bytes = 0;
  for (std::string_view piece : pieces) {
    bytes += piece.size();
    if (event_stream_) tail_.Passed(piece);
  }
  if (event_stream_ && !end) ArmHeartbeat();
  std::string gathered;
  if (pieces.size() > kMaxParts) {
    for (std::string_view piece : pieces) gathered.append(piece);
  }
  const std::string_view whole = gathered;
  if (!gathered.empty()) pieces = {&whole, 1};
  // The head of a body whose length is known goes with its first bytes.
  if (bytes == 0 && !end && framing_ == Body::kLength && !event_stream_) return;
  char chunk[24];
  const bool chunked = framing_ == Body::kChunked;
  if (framing_ != Body::kNone) {
    outcome_.body_bytes += bytes;
    if (chunked && bytes > 0) parts[count++] = http::ChunkHead(bytes, chunk);
    for (std::string_view piece : pieces) parts[count++] = piece;
    if (chunked && bytes > 0) parts[count++] = kCrlf;
    if (chunked && end) parts[count++] = kLastChunk;
  }
  SendParts({parts.data(), count});
}

// Whole chunks as they came; `pieces` is what they hold.
void CallImpl::SendChunks(std::span<const std::string_view> pieces, std::string_view framed) {
  for (std::string_view piece : pieces) {
    if (event_stream_) tail_.Passed(piece);
    outcome_.body_bytes += piece.size();
  }
  if (event_stream_) ArmHeartbeat();
  const std::array<std::string_view, 1> parts = {framed};
  SendParts(parts);
}

// A body that ends with its connection.
void CallImpl::EndUntilClose() {
  upstream_ended_ = true;
  DropUpstream();
  std::vector<std::string_view> pieces;
  if (mode_ == BodyMode::kEdit) return Edit(pieces, true);
  if (mode_ == BodyMode::kWatch && !Show(pieces, true)) return;
  HoldLine(&pieces, true);
  SendContent(pieces, true);
  FinishAnswer();
}

// With the head in front, when it has not gone yet.
void CallImpl::SendParts(std::span<const std::string_view> parts) {
  std::array<iovec, kMaxParts + 5> vectors;
  size_t count = 0;
  const auto add = [&](std::string_view part) {
    if (!part.empty()) vectors[count++] = {const_cast<char*>(part.data()), part.size()};
  };
  add(pending_head_);
  for (std::string_view part : parts) add(part);
  if (count > 0) client_->Send(vectors.data(), count);
  pending_head_.clear();
  paused_ |= client_->behind();
}

void CallImpl::FinishAnswer() {
  if (phase_ != Phase::kRelaying) return;
  outcome_.whole = true;
  EndOnClient(keep_, false);
}

// Whatever the client has of the answer, it shall see that it is not whole.
void CallImpl::CutAnswer() {
  DropUpstream();
  SendParts({});
  // Without a framing only a reset shows it.
  EndOnClient(false, framing_ == Body::kUntilClose);
}

void CallImpl::Cut(Failure failure, std::string_view what) {
  outcome_.cut = true;
  EndWithEvent(loop_.policy().OnCut(*this, failure, what));
}

void CallImpl::BreakOff(std::string_view error) {
  if (phase_ != Phase::kRelaying) return Abort();
  DropUpstream();
  EndWithEvent(error);
}

void CallImpl::EndWithEvent(std::string_view error) {
  if (phase_ != Phase::kRelaying) return;
  if (!event_stream_ || (framing_ != Body::kChunked && framing_ != Body::kUntilClose))
    return CutAnswer();
  line_.clear();
  const bool named = !error_event.empty();
  const std::array<std::string_view, 7> event = {
      tail_.Closing(), named ? "event: " : "", error_event, named ? "\n" : "", "data: ", error,
      "\n\n"};
  SendContent(event, true);
  EndOnClient(false, false);
}

}  // namespace llmd::relay
