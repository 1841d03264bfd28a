#include "gateway/director_policy.h"
#include "gateway/front.h"
#include "llmd/http/relay/relay.h"

namespace llmd::gateway {
namespace {

// Of its only pool.
EngineList EnginesOf(const sched::Director& director) {
  return [&director] {
    std::vector<doors::EngineName> out;
    for (const sched::EndpointInfo& endpoint : director.Endpoints())
      out.push_back({"", endpoint.HostPort()});
    return out;
  };
}

class RelayFront final : public Front {
 public:
  RelayFront(const FrontOptions& options, sched::Director& director, doors::Doors& doors,
             std::vector<LocalPage> pages, std::unique_ptr<WorkerPool> workers,
             const Logger& logger, MetricsRegistry& metrics, PageWatch* watch)
      : pages_(std::move(pages)),
        models_(doors, options.engines ? options.engines : EnginesOf(director)),
        metrics_(metrics),
        health_(SystemClock()),
        workers_(std::move(workers)),
        access_log_(OpenAccessLog(options, metrics)),
        parts_{pages_,
               doors,
               models_,
               metrics_,
               health_,
               *workers_,
               options.timeouts,
               options.tries,
               options.seed,
               logger,
               {metrics_.requests, access_log_.get(), options.tracer}},
        own_{director, watch} {}
  ~RelayFront() override {
    if (relay_) Stop(Duration::zero());
  }

  Status Start(const FrontOptions& options, const Logger& logger) {
    const auto policy = [this](relay::Loop& loop) -> std::unique_ptr<relay::Policy> {
      return std::make_unique<DirectorPolicy>(parts_, own_, loop);
    };
    LLMD_ASSIGN_OR_RETURN(relay_, relay::Relay::Create(RelayOptionsOf(options), policy, logger));
    return OkStatus();
  }

  uint16_t port() const override { return relay_->port(); }
  std::vector<relay::LoopStats> Stats() const override { return relay_->Stats(); }
  void Stop(Duration drain) override {
    relay_->Stop(drain);
    workers_->Stop();
  }

 private:
  const std::vector<LocalPage> pages_;
  ModelReader models_;
  GatewayMetrics metrics_;
  relay::UpstreamHealth health_;
  std::unique_ptr<WorkerPool> workers_;
  const std::unique_ptr<services::AccessLog> access_log_;
  const PolicyParts parts_;
  const DirectorParts own_;
  std::unique_ptr<relay::Relay> relay_;
};

}  // namespace

relay::RelayOptions RelayOptionsOf(const FrontOptions& options) {
  relay::RelayOptions out;
  out.server.host = options.host;
  out.server.port = options.port;
  out.server.max_body_bytes = options.max_body_bytes;
  out.loops = options.loops;
  out.allow_half_close = options.allow_half_close;
  out.server.tls = options.tls;
  out.upstream_tls = options.upstream_tls;
  out.upstream_tls_host = options.upstream_tls_host;
  out.sse_heartbeat = options.sse_heartbeat;
  ApplyLimits(options.limits, out);
  return out;
}

std::unique_ptr<services::AccessLog> OpenAccessLog(const FrontOptions& options,
                                                   MetricsRegistry& metrics) {
  if (options.access_log == nullptr) return nullptr;
  return services::AccessLog::Create(options.access_log, options.loops, metrics);
}

StatusOr<std::unique_ptr<Front>> MakeRelayFront(const FrontOptions& options,
                                                sched::Director& director, doors::Doors& doors,
                                                std::vector<LocalPage> pages, const Logger& logger,
                                                MetricsRegistry& metrics, PageWatch* watch) {
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<WorkerPool> workers,
                        WorkerPool::Create({.name = "gateway", .threads = 2, .max_queued = 1024}));
  auto front = std::make_unique<RelayFront>(options, director, doors, std::move(pages),
                                            std::move(workers), logger, metrics, watch);
  LLMD_RETURN_IF_ERROR(front->Start(options, logger));
  return std::unique_ptr<Front>(std::move(front));
}

}  // namespace llmd::gateway
