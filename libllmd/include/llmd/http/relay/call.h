// One request on its way through the relay, as a policy sees it. The relay reads and checks the
// request, the policy says where it goes or what is answered, the relay moves the bytes.
//
//   OnHead → (body is read) → OnRequest → Send ─┬→ OnFailure → Send … or Answer
//                                   │           ├→ OnCollected → Send … or Answer   (SendOptions)
//                                   │           ├→ OnResponseHead → Collect → OnCollected …
//                                   Answer      └→ OnResponseHead → Forward → [OnResponseBytes …]
//   and at the end of whatever happened, exactly once, OnEnd.
//
// Thread rule: a call belongs to one loop for all its life; every member but ref() is for that
// loop's thread. Any hook may call any member; what it asks for takes place after the hook has
// returned at the latest. A policy that must ask somebody else first returns from the hook and goes
// on from CallRef::Post.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "llmd/clock.h"
#include "llmd/http/head_view.h"
#include "llmd/http/relay/target.h"

namespace llmd::relay {

class Call;
class Loop;
struct Connection;

// Sets one header line in place of all of that name, or removes them. Names compare without regard
// to case; CR, LF and NUL in a value are sent as blanks. Framing (Content-Length,
// Transfer-Encoding, Connection) is the relay's: edits of it are passed over.
struct HeaderEdit {
  std::string_view name, value;
  bool remove = false;
};

// Why a leg failed. All but the last two are held against the endpoint.
enum class Failure : uint8_t {
  kRefused,   // no connection: refused, unreachable, or not made within the connect timeout
  kReset,     // reset or closed before the answer was whole
  kTimeout,   // silent for longer than the first-byte or the gap timeout
  kProtocol,  // not HTTP, a malformed head, a bad chunk, a head above the limit
  kOurs,      // no descriptor, port or memory here, or an answer above what is collected of it
  kDeadline,  // the request's own time was over: SendOptions::deadline
};
std::string_view NameOf(Failure failure);  // "refused", …

// One leg. Views are read within Send, but for the body.
struct SendOptions {
  Target target;
  std::shared_ptr<const UpstreamTls> tls;  // null = by RelayOptions::upstream_tls
  std::string_view method;                 // "" = the client's
  std::string_view path;                   // path and query; "" = the client's
  // What the client sent goes on, without hop-by-hop lines and with the forwarding headers; then
  // these. With `own_headers` the edits are all there is (besides Host).
  std::span<const HeaderEdit> headers;
  bool own_headers = false;
  // Sent in place of the client's body, in order; at most kMaxBodyParts. The bytes (not the table)
  // must hold until the leg has ended: OnResponseHead, OnCollected, OnFailure or OnEnd, whichever
  // comes first. A leg without body: own_body with no parts.
  static constexpr size_t kMaxBodyParts = 64;
  std::span<const std::string_view> body;
  bool own_body = false;
  // Above 0: the answer is not for the client. It is collected up to so many bytes of body and
  // handed to OnCollected, informational heads passed over and chunking undone.
  size_t collect_bytes = 0;
  Duration connect_timeout = std::chrono::seconds(5);
  Duration first_byte_timeout = std::chrono::seconds(600);  // request sent → answer's head
  Duration gap_timeout = std::chrono::seconds(600);         // between two pieces of the answer
  TimePoint deadline = TimePoint::max();  // of the whole leg, to the answer's last byte
};

// What becomes of an answer's body on its way to the client.
enum class BodyMode : uint8_t {
  kPass,   // bytes and framing pass; the policy sees nothing of them
  kWatch,  // the same, and OnResponseBytes is shown each piece
  kEdit,   // OnResponseBytes says what is sent; the relay frames it anew (no Content-Length)
};

// How a call ended.
struct Outcome {
  int status = 0;            // sent to the client; 0 = none (it left first)
  uint64_t body_bytes = 0;   // of the answer, sent or handed to the system
  bool whole = false;        // the answer was sent to its end
  bool client_gone = false;  // the client left before that
  bool cut = false;          // the upstream broke off after the answer's head was sent
  bool refused = false;      // the request broke a rule of HTTP or a limit: see OnRefused
  TimePoint received{};      // first byte of the request's head
  TimePoint head_sent{};     // of the answer; epoch = never
  TimePoint ended{};
};

// A name for a call that outlives it: cheap to copy, may be kept by other threads.
class CallRef {
 public:
  CallRef() = default;
  // Any thread. Runs `fn` on the call's loop, soon; not at all when the call is over by then.
  // False, and nothing will run, when the relay has stopped. A call may wait for what is told to
  // it: the bound of the loop's queue (RelayOptions::max_posts) is not for these, but the number of
  // calls, so who posts does it a few times a call.
  bool Post(std::function<void(Call&)> fn) const;
  explicit operator bool() const { return loop_ != nullptr; }
  friend bool operator==(const CallRef&, const CallRef&) = default;

 private:
  friend class Loop;
  Loop* loop_ = nullptr;
  uint32_t slot_ = 0, generation_ = 0;
};

class Call {
 public:
  // The request's head. Views hold until Forward, Answer or OnEnd, whichever comes first; a policy
  // copies what it needs afterwards (a path for the log). Empty methods and targets: a call that
  // was refused before its head could be read, or one of Loop::Open.
  virtual const http::RequestView& request() const = 0;
  // The whole body, from OnRequest on; holds as long as request().
  virtual std::string_view body() const = 0;
  virtual bool has_body() const = 0;  // a Content-Length (0 too) or chunks were announced
  // "127.0.0.1:41234"; "" for one of Loop::Open.
  virtual std::string_view peer() const = 0;
  // The client's connection; null for one of Loop::Open, and once the call is over.
  virtual Connection* connection() const { return nullptr; }
  virtual bool tls() const = 0;  // the client speaks TLS
  // The verified subject of the client's certificate as RFC 2253 writes it, or its first
  // alternative name ("URI:spiffe://…"); at most 256 bytes. "" = none was asked for.
  virtual std::string_view client_subject() const { return {}; }
  virtual TimePoint received() const = 0;
  virtual TimePoint now() const = 0;  // the loop's clock, read once a turn
  virtual Loop& loop() const = 0;
  virtual CallRef ref() const = 0;

  // The policy's own state of this call; null at first. The relay never looks at it.
  void* context = nullptr;
  // The `event:` line of what ends an event stream that was broken off (OnCut, BreakOff); "" =
  // none, as OpenAI's clients expect it. The text outlives the call.
  std::string_view error_event;

  // Starts a leg. From OnRequest on, while no answer has been forwarded; a leg that is under way is
  // broken off without a hook.
  virtual void Send(const SendOptions& options) = 0;
  // Ends the call with an answer of our own, as long as none has been forwarded; breaks off a leg
  // that is under way. Content-Length, Date and Connection are added; `body` is copied where it
  // cannot be sent at once. Answers to HEAD go without it.
  virtual void Answer(int status, std::span<const HeaderEdit> headers, std::string_view body) = 0;
  // After OnResponseHead (within it, or later: until then the upstream is not read on): sends the
  // head with these edits, hop-by-hop lines removed, and then the body by `mode`.
  virtual void Forward(std::span<const HeaderEdit> edits, BodyMode mode) = 0;
  // Within OnResponseHead, and later until Forward: the body, where its length is declared and all
  // of it has come; "" otherwise. Up to 64 KiB are read on while the head waits. It is shown to
  // OnResponseBytes all the same, after Forward.
  virtual std::string_view whole_body() const { return {}; }
  // Within OnResponseHead: this answer is not for the client, or not yet: it is collected, up to so
  // many bytes of body, as with SendOptions::collect_bytes.
  virtual void Collect(size_t bytes) {}
  // Breaks off a leg that is under way and not forwarded, without a hook.
  virtual void Drop() {}
  // Ends the call and the client's connection: what was begun is cut, so that the client sees that
  // it is not whole. For the client of an answer not yet begun the connection just closes.
  virtual void Abort() = 0;
  // Ends an answer that was forwarded and has not ended: an event stream by an event of its own
  // that holds `error` (JSON), any other by cutting it. Without a forwarded answer: Abort.
  virtual void BreakOff(std::string_view error) = 0;

  // In BodyMode::kEdit, when OnResponseBytes held bytes back (Piece::held): sends `bytes`, which
  // settle `covers` of those handed over; `last` ends the answer. The upstream is not read on while
  // more than RelayOptions::max_held_bytes are unsettled.
  virtual void Release(std::string_view bytes, size_t covers, bool last) = 0;

  // Bytes of the answer that the client's socket has not taken. The relay stops reading the
  // upstream while there are any; whoever releases bytes from elsewhere looks here.
  virtual size_t unsent() const { return 0; }

  // OnTimer once, after `delay` (the loop's granularity is 16 ms); replaces an earlier one; zero
  // clears it. Ends with the call.
  virtual void SetTimer(Duration delay) = 0;

  // In OnEnd: the call's views and context stay until LetGo, since somebody still reads them (a
  // scheduler that was asked). Posts still reach it; of its members only the views, context, ref(),
  // now() and LetGo may be used.
  virtual void Retain() = 0;
  virtual void LetGo() = 0;

 protected:
  ~Call() = default;
};

}  // namespace llmd::relay
