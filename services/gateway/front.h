// The gateway's door to its clients: over the relay, with the Director in this process or with a
// picker that is asked.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/access_log.h"
#include "gateway/client_limits.h"
#include "gateway/doors/doors.h"
#include "gateway/ext_proc_options.h"
#include "gateway/model_reader.h"
#include "gateway/page_watch.h"
#include "gateway/pages.h"
#include "gateway/timeouts.h"
#include "gateway/tries.h"
#include "llmd/http/relay/relay.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/sched/director.h"
#include "llmd/status.h"
#include "llmd/tracing.h"

namespace llmd::gateway {

struct FrontOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  int loops = 1;  // of the relay
  size_t max_body_bytes = 100 << 20;
  TryLimits tries;
  TimeoutTable timeouts;
  Duration sse_heartbeat{};             // of the relay
  uint64_t seed = 1;                    // of back-offs
  bool allow_half_close = false;        // of the relay
  std::shared_ptr<LogSink> access_log;  // gets a line for each request; null = none
  Tracer* tracer = nullptr;             // of sampled requests; outlives the front
  http::TlsProvider tls, upstream_tls;  // of the relay; empty = clear text
  std::string upstream_tls_host;        // of the relay
  ClientLimits limits;
  // Whose models are read. Empty: those of the director; with a picker always those of its options.
  EngineList engines;
};

relay::RelayOptions RelayOptionsOf(const FrontOptions& options);
// Null without a sink. `metrics` outlives it.
std::unique_ptr<services::AccessLog> OpenAccessLog(const FrontOptions& options,
                                                   MetricsRegistry& metrics);

// Thread-safe.
class Front {
 public:
  virtual ~Front() = default;
  virtual uint16_t port() const = 0;
  // Takes no newcomers, lets what runs end until `drain`, cuts the rest. Blocks.
  virtual void Stop(Duration drain) = 0;
  virtual std::vector<relay::LoopStats> Stats() const = 0;
};

// What is referred to outlives the front; the director is stopped before the front is destroyed.
// `watch` tells which endpoints are silent; null = nobody knows.
StatusOr<std::unique_ptr<Front>> MakeRelayFront(const FrontOptions& options,
                                                sched::Director& director, doors::Doors& doors,
                                                std::vector<LocalPage> pages, const Logger& logger,
                                                MetricsRegistry& metrics,
                                                PageWatch* watch = nullptr);

class PickerFront : public Front {
 public:
  // Requests can be decided: the picker is connected on every loop, or not needed.
  virtual bool picker_ready() const = 0;
};
// INVALID_ARGUMENT for an endpoint that is no "ip:port". In builds with gRPC only.
StatusOr<std::unique_ptr<PickerFront>> MakePickerFront(const FrontOptions& options,
                                                       ExtProcOptions picker, doors::Doors& doors,
                                                       std::vector<LocalPage> pages,
                                                       const Logger& logger,
                                                       MetricsRegistry& metrics);

}  // namespace llmd::gateway
