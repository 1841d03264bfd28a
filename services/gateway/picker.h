// How the gateway gets its decisions from an endpoint picker over ext_proc. Both sides of the
// interface run on the loop thread of the request.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/http/server.h"
#include "llmd/http/task.h"
#include "llmd/sched/director.h"
#include "llmd/status.h"

namespace llmd::gateway {

using sched::HeaderList;

struct PickInput {
  HeaderList headers;  // lower-cased, pseudo headers first
  std::shared_ptr<const std::string> body;
  bool has_body = false;
  std::vector<std::string> exclude;  // endpoints this request has failed at
  std::vector<std::string> avoid;    // to be left out too, unless nothing else is there
  TimePoint received{};              // when the request was first asked about
  std::string target_model;          // that its first try was sent for; "" = this is the first
};

// One request's decision and the hooks for its response. Destroying it before the response ended
// cancels the request.
class Pick {
 public:
  virtual ~Pick() = default;
  virtual const sched::Routing& routing() const = 0;
  // The body to send: the original, or with the picker's edits.
  virtual std::string_view body() const = 0;
  // Before OnResponseHeaders: which of the routing's endpoints answers.
  virtual void OnServed(std::string_view endpoint) = 0;
  // Headers to set on the response.
  virtual http::Task<HeaderList> OnResponseHeaders(int status, const HeaderList& headers) = 0;
  // What to send instead of `chunk` (often the chunk itself); holds until the next call.
  virtual http::Task<std::string_view> OnResponseBody(std::string_view chunk, bool end) = 0;
  // The refusal when flow control has taken the request back after it was routed; null = it has
  // not. What OnResponseBody gave then is void.
  virtual const sched::Denial* evicted() const = 0;
  // `callback` is called on the loop thread when that happens, at once if it has; null to clear it.
  virtual void OnEvicted(std::function<void()> callback) = 0;
};

// Thread-safe.
class Picker {
 public:
  virtual ~Picker() = default;
  // UNAVAILABLE when the picker cannot be asked; CANCELLED when the client left meanwhile. A
  // refusal is a Pick whose routing is not ok.
  virtual http::Task<StatusOr<std::unique_ptr<Pick>>> Choose(http::Exchange& exchange,
                                                             PickInput input) = 0;
  virtual bool ready() const = 0;
  virtual StatusOr<std::string> Explain(std::string_view request_id) const = 0;
};

// How to reach an endpoint picker; PEM text.
struct PickerAddress {
  std::string target;      // "host:port"
  bool secure = false;     // TLS; without an authority any certificate is taken
  std::string authority;   // whose certificate the picker must show, for the target's host
  std::string chain, key;  // ours, for mTLS
};
// Talks ext_proc, as Envoy does.
std::unique_ptr<Picker> MakeExtProcPicker(const PickerAddress& address);

}  // namespace llmd::gateway
