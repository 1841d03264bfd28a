// What decides about requests in the relay: where they go, what is answered, what happens when an
// upstream fails. The relay has one policy a loop, so that a policy needs no locks; what policies
// share (a scheduler, the health of upstreams) is their affair.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "llmd/http/relay/call.h"

namespace llmd::relay {

// What OnResponseBytes wants sent.
struct Piece {
  std::string_view
      send;  // the piece itself, or bytes of the policy's that hold until the next hook
  // The policy keeps (some of) what it was shown and will settle all of it by Call::Release. With
  // it the answer does not end by itself.
  bool held = false;
};

// A request that broke a rule of HTTP or a limit, or for which there is no room. Texts are the
// relay's own, or what OnConnect or OnTake gave.
struct Refusal {
  int status = 400;
  std::string_view message;
  std::string_view code = {};  // "" = none but the status
  int retry_after_s = 0;       // 0 = not said
};

// A client's connection, as long as it stands.
struct Connection {
  std::string_view peer;    // "127.0.0.1:41234"
  void* context = nullptr;  // the policy's own; the relay never looks at it
};
// What a connection holds memory for.
enum class Held : uint8_t {
  kHead,  // of a head that has only begun; one that comes whole is not counted
  kBody,  // of a request's body; one that fits beside its head (16 KiB) is not counted
};

// All hooks run on the loop's thread and must not block.
class Policy {
 public:
  virtual ~Policy() = default;

  // A client has connected; above max_connections the relay refuses it without asking. False, with
  // `refusal` filled (it holds until the next hook): it is answered so, whatever it sends, and
  // closed; over TLS it is only closed.
  virtual bool OnConnect(Connection& connection, Refusal& refusal) { return true; }
  // The end of each connection that OnConnect was called for, whatever it said; after the OnEnd of
  // its calls.
  virtual void OnDisconnect(Connection& connection) {}
  // It is to hold so many bytes more. False, with `refusal` filled: its request is refused so, and
  // nothing is held.
  virtual bool OnTake(Connection& connection, Held what, size_t bytes, Refusal& refusal) {
    return true;
  }
  // It holds so many bytes less; by its end all that it took.
  virtual void OnGiveBack(Connection& connection, Held what, size_t bytes) {}

  // The head is whole and within the rules; the body has not been read. May Answer (no such route,
  // no key) within the hook, whereupon the body is not read, and a client that waits for leave to
  // send it is not given any. Without an answer OnRequest follows.
  virtual void OnHead(Call& call) {}
  // Head and body are whole. Send or Answer, now or later.
  virtual void OnRequest(Call& call) = 0;
  // The relay refuses the request (400, 408, 413, 417, 431, 503, 505, or as OnTake said); its head
  // may be unread. To
  // be answered in this hook with that status; the connection closes after it. The default sends an
  // OpenAI error object.
  virtual void OnRefused(Call& call, const Refusal& refusal);

  // A leg failed before its answer was forwarded; `what` says how, with the upstream's address. A
  // POST that a reused connection swallowed has been sent again once already. Send (elsewhere) or
  // Answer, now or later.
  virtual void OnFailure(Call& call, Failure failure, std::string_view what) = 0;
  // The answer's head has come; the views hold until Forward. Forward, or break it off by Send or
  // Answer, now or later.
  virtual void OnResponseHead(Call& call, const http::ResponseView& head) = 0;
  // In BodyMode::kWatch and kEdit: the next piece of the body as the upstream sent it, chunking
  // undone; `end` with the last, which may be empty, and only when the answer came whole. kWatch
  // passes over what is returned.
  virtual Piece OnResponseBytes(Call& call, std::string_view piece, bool end) { return {piece}; }
  // With SendOptions::collect_bytes, or after Collect: the whole answer; the views hold for this
  // hook. Send or Answer, now or later.
  virtual void OnCollected(Call& call, const http::ResponseView& head, std::string_view body) {}
  // The upstream broke off a forwarded answer. The client of an event stream gets an event with
  // this JSON (a view that holds until the next hook) under the name of Call::error_event, then the
  // end; other answers are cut. The default is an OpenAI error object with code 502.
  virtual std::string_view OnCut(Call& call, Failure failure, std::string_view what);

  virtual void OnTimer(Call& call) {}
  // Exactly once for every call, as its last hook.
  virtual void OnEnd(Call& call, const Outcome& outcome) = 0;
  // About every 250 ms, without any call: time for probes.
  virtual void OnTick() {}
};

// What a policy may ask of its loop.
class Loop {
 public:
  virtual int index() const = 0;  // 0 … loops - 1
  virtual TimePoint now() const = 0;
  // Any thread. False when the queue is full or the relay has stopped.
  virtual bool Post(std::function<void()> fn) = 0;
  // A call without a client, for requests of the policy's own (probes, /v1/models): Send with
  // own_headers and collect_bytes, then OnCollected or OnFailure, and Abort to end it. Loop thread.
  virtual Call& Open() = 0;

 protected:
  ~Loop() = default;
  friend class CallRef;
  virtual bool PostTo(uint32_t slot, uint32_t generation, std::function<void(Call&)> fn) = 0;
  static CallRef MakeRef(Loop* loop, uint32_t slot, uint32_t generation);
};

}  // namespace llmd::relay
