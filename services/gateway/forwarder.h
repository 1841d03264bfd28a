// The gateway's one handler: asks the picker, sends the request to the endpoint, relays the answer.
// Another endpoint is tried while no byte of an answer has come; after that an engine's death
// becomes an error event.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gateway/gateway_metrics.h"
#include "gateway/picker.h"
#include "llmd/http/client.h"
#include "llmd/http/server.h"
#include "llmd/log.h"
#include "llmd/metrics.h"

namespace llmd::gateway {

struct ForwarderOptions {
  int max_attempts = 3;
  Duration first_byte_timeout = std::chrono::seconds(600);
  Duration read_timeout = std::chrono::seconds(600);
  // An endpoint that refused, reset, was silent or spoke no HTTP is left out this long, unless
  // nothing else is there: then it is tried all the same. Faults of our own (no descriptor, no
  // port) are held against nobody.
  Duration ejection = std::chrono::seconds(2);
};

// Endpoints that failed an exchange lately. Thread-safe; bounded by dropping entries that are
// over.
class Ejections {
 public:
  Ejections(Duration time, const Clock& clock) : time_(time), clock_(clock) {}
  void Add(const std::string& endpoint);
  void Clear(const std::string& endpoint);
  std::vector<std::string> Current();

 private:
  const Duration time_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, TimePoint> until_;
};

// Thread-safe; everything passed in must outlive it.
class Forwarder {
 public:
  Forwarder(Picker& picker, http::Client& client, ForwarderOptions options, Logger logger,
            MetricsRegistry& metrics, const Clock& clock);

  http::Task<void> Handle(http::Exchange& exchange);

 private:
  struct Attempt;
  struct Request;
  http::Task<void> Route(http::Exchange& exchange, Request& request);
  http::Task<bool> TryOnce(http::Exchange& exchange, Request& request);
  http::Task<StatusOr<std::unique_ptr<Pick>>> Choose(http::Exchange& exchange, Request& request,
                                                     std::vector<std::string> avoid);
  void NoteFailure(Request& request, const std::string& endpoint);
  http::Task<Status> Connect(http::Exchange& exchange, Request& request);
  http::Task<void> RelayAnswer(http::Exchange& exchange, Request& request);
  http::Task<void> BreakOff(http::Exchange& exchange, Request& request, bool sse);
  http::Task<void> SendError(http::Exchange& exchange, Request& request, int status,
                             std::string message);
  http::Task<void> Deny(http::Exchange& exchange, Request& request, const sched::Denial& denial);
  void Finish(const http::Exchange& exchange, const Request& request);

  Picker& picker_;
  http::Client& client_;
  const ForwarderOptions options_;
  Logger logger_;
  const Clock& clock_;
  Ejections ejections_;
  GatewayMetrics metrics_;
};

// The request's headers as the picker wants them: pseudo headers first, names in lower case,
// routing headers a client must not set left out.
HeaderList PickerHeaders(const http::RequestHead& head);
}  // namespace llmd::gateway
