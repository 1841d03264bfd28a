// grpc.health.v1: liveness always, pool/NAME by the readiness of that pool, every other name by
// that of the process (endpoint-picker manifests probe several names).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "llmd/log.h"

namespace llmd::epp {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // `ready` (of a pool; "" = of the process) must be thread-safe and outlive the server. `pools`
  // are listed.
  HealthService(std::function<bool(std::string_view pool)> ready, std::vector<std::string> pools,
                Logger logger)
      : ready_(std::move(ready)), pools_(std::move(pools)), logger_(std::move(logger)) {}

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::health::v1::HealthListRequest* request,
                                 grpc::health::v1::HealthListResponse* response) override;

 private:
  grpc::health::v1::HealthCheckResponse::ServingStatus StatusOf(std::string_view service) const;

  const std::function<bool(std::string_view pool)> ready_;
  const std::vector<std::string> pools_;
  Logger logger_;
};

}  // namespace llmd::epp
