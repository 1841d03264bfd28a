// The gateway's door with a picker that is asked over ext_proc.
#include <grpcpp/grpcpp.h>

#include "gateway/ext_proc_client.h"
#include "gateway/ext_proc_credentials.h"
#include "gateway/ext_proc_policy.h"
#include "gateway/front.h"
#include "llmd/http/relay/relay.h"

namespace llmd::gateway {
namespace {

// Of an answer, waiting for the picker: what a client that reads nothing costs is bounded by it.
constexpr size_t kMaxHeldBytes = 256 << 10;

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments out;
  // A picker that starts after the gateway, or comes back, is found within the second.
  out.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  out.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);  // how long a handshake may take
  out.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // One connection a loop; what broke off is asked again by the request itself.
  out.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  out.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return out;
}

std::vector<doors::EngineName> NamesOf(const std::vector<std::string>& addresses) {
  std::vector<doors::EngineName> out;
  for (const std::string& address : addresses) out.push_back({"", address});
  return out;
}

class ExtProcFront final : public PickerFront {
 public:
  ExtProcFront(const FrontOptions& options, ExtProcOptions picker, doors::Doors& doors,
               std::vector<LocalPage> pages, std::unique_ptr<WorkerPool> workers,
               const Logger& logger, MetricsRegistry& metrics)
      : pages_(std::move(pages)),
        models_(doors, [known = NamesOf(picker.endpoints)] { return known; }),
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
        own_{std::move(picker), ExtProcMetrics(metrics)},
        credentials_(PickerCredentials(own_.options.address)) {}
  ~ExtProcFront() override {
    if (relay_) Stop(Duration::zero());
    StopClients();
  }

  Status Start(const FrontOptions& options, const Logger& logger) {
    const auto policy = [this](relay::Loop& loop) -> std::unique_ptr<relay::Policy> {
      clients_.push_back(MakeClient(loop));
      return std::make_unique<ExtProcPolicy>(parts_, own_, *clients_.back(), loop);
    };
    clients_.reserve(static_cast<size_t>(options.loops));
    relay::RelayOptions relay = RelayOptionsOf(options);
    relay.max_held_bytes = kMaxHeldBytes;
    LLMD_ASSIGN_OR_RETURN(relay_, relay::Relay::Create(std::move(relay), policy, logger));
    started_ = true;
    return OkStatus();
  }

  uint16_t port() const override { return relay_->port(); }
  std::vector<relay::LoopStats> Stats() const override { return relay_->Stats(); }
  bool picker_ready() const override {
    if (!started_) return false;
    for (const auto& client : clients_) {
      if (!client->ready()) return own_.options.open && !own_.options.endpoints.empty();
    }
    return true;
  }
  void Stop(Duration drain) override {
    relay_->Stop(drain);
    StopClients();
    workers_->Stop();
  }

 private:
  std::unique_ptr<GrpcPickerClient> MakeClient(relay::Loop& loop) {
    PickerClientOptions client;
    client.channel =
        grpc::CreateCustomChannel(own_.options.address.target, credentials_, Arguments());
    client.post = [&loop](std::function<void()> fn) { return loop.Post(std::move(fn)); };
    client.probe_timeout = own_.options.timeout / 2;
    return std::make_unique<GrpcPickerClient>(std::move(client));
  }
  // They post to the relay's loops, so they go before it.
  void StopClients() {
    for (const auto& client : clients_) client->Stop();
  }

  const std::vector<LocalPage> pages_;
  ModelReader models_;
  GatewayMetrics metrics_;
  relay::UpstreamHealth health_;
  std::unique_ptr<WorkerPool> workers_;
  const std::unique_ptr<services::AccessLog> access_log_;
  const PolicyParts parts_;
  ExtProcParts own_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::vector<std::unique_ptr<GrpcPickerClient>> clients_;
  std::atomic<bool> started_{false};  // from then on the list of clients is complete
  std::unique_ptr<relay::Relay> relay_;
};

}  // namespace

StatusOr<std::unique_ptr<PickerFront>> MakePickerFront(const FrontOptions& options,
                                                       ExtProcOptions picker, doors::Doors& doors,
                                                       std::vector<LocalPage> pages,
                                                       const Logger& logger,
                                                       MetricsRegistry& metrics) {
  for (const std::string& address : picker.endpoints)
    LLMD_RETURN_IF_ERROR(relay::Target::Parse(address).status().WithContext("--epp-endpoint"));
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<WorkerPool> workers,
                        WorkerPool::Create({.name = "pages", .threads = 1, .max_queued = 64}));
  auto front = std::make_unique<ExtProcFront>(options, std::move(picker), doors, std::move(pages),
                                              std::move(workers), logger, metrics);
  LLMD_RETURN_IF_ERROR(front->Start(options, logger));
  return std::unique_ptr<PickerFront>(std::move(front));
}

}  // namespace llmd::gateway
