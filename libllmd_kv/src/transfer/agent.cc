#include <algorithm>

#include "llmd/kv/transfer.h"
#include "transfer/lease_table.h"
#include "transfer/reader.h"
#include "transfer/server.h"

namespace llmd::kv {
namespace {

constexpr size_t kMaxBlockBytes = size_t{1} << 30;  // a DATA frame's length has 32 bits
constexpr size_t kMaxEngineIdBytes = 96;            // what fits an abstract socket's name

Status CheckOptions(const AgentOptions& options) {
  const auto& id = options.engine_id;
  const bool printable =
      std::all_of(id.begin(), id.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (id.empty() || id.size() > kMaxEngineIdBytes || !printable) {
    return InvalidArgument("engine id '" + id + "': expected 1 to 96 printable characters");
  }
  const auto& transport = options.transport;
  if (transport != "auto" && transport != "memfd" && transport != "tcp") {
    return InvalidArgument("transport '" + transport + "': expected auto, memfd or tcp");
  }
  const auto& require = options.require;
  if (!require.empty() && require != "memfd" && require != "tcp") {
    return InvalidArgument("require '" + require + "': expected memfd, tcp or nothing");
  }
  if (!require.empty() && transport != "auto" && transport != require) {
    return InvalidArgument("transport '" + transport + "' can never be the required '" + require +
                           "'");
  }
  if (options.lease <= Duration::zero() || options.connect_timeout <= Duration::zero() ||
      options.read_timeout <= Duration::zero()) {
    return InvalidArgument("lease, connect_timeout and read_timeout must be above zero");
  }
  return OkStatus();
}

class AgentImpl final : public Agent {
 public:
  AgentImpl(Region& region, AgentOptions options, ReleaseFn on_release, Logger logger,
            MetricsRegistry& metrics, const Clock& clock)
      : options_(std::move(options)),
        logger_(std::move(logger)),
        leases_(region, options_.max_leases, options_.lease, std::move(on_release), metrics, clock),
        reader_(region, options_, logger_, metrics) {}
  ~AgentImpl() override { StopAll(); }

  Status Listen(Region& region) {
    LLMD_ASSIGN_OR_RETURN(server_,
                          TransferServer::Start(region, options_, leases_, logger_, [this] {
                            leases_.Expire();
                            reader_.Sweep();
                          }));
    logger_.Info("KV transfer: listening", {{"host", options_.host},
                                            {"port", int64_t{server_->port()}},
                                            {"engine_id", options_.engine_id}});
    return OkStatus();
  }

  uint16_t port() const override { return server_->port(); }
  Status Lend(const std::string& request_id, std::vector<int32_t> blocks) override {
    return leases_.Lend(request_id, blocks);
  }
  void Revoke(const std::string& request_id) override { leases_.Revoke(request_id); }
  size_t leases() const override { return leases_.size(); }
  void Pull(PullRequest request, std::function<void(PullResult)> done) override {
    reader_.Pull(std::move(request), std::move(done));
  }
  void ExpireLeases() override { leases_.Expire(); }
  void Stop() override { StopAll(); }

 private:
  void StopAll() {
    reader_.Stop();
    if (server_) server_->Stop();
  }

  const AgentOptions options_;
  const Logger logger_;
  LeaseTable leases_;
  TransferReader reader_;
  std::unique_ptr<TransferServer> server_;
};

}  // namespace

StatusOr<std::unique_ptr<Agent>> Agent::Start(Region& region, AgentOptions options,
                                              ReleaseFn on_release, Logger logger,
                                              MetricsRegistry& metrics, const Clock& clock) {
  LLMD_RETURN_IF_ERROR(CheckOptions(options));
  if (region.block_bytes() > kMaxBlockBytes) {
    return InvalidArgument("KV blocks of " + std::to_string(region.block_bytes()) +
                           " bytes, at most " + std::to_string(kMaxBlockBytes) +
                           " can be transferred");
  }
  auto agent = std::make_unique<AgentImpl>(region, std::move(options), std::move(on_release),
                                           std::move(logger), metrics, clock);
  LLMD_RETURN_IF_ERROR(agent->Listen(region));
  return std::unique_ptr<Agent>(std::move(agent));
}

}  // namespace llmd::kv
