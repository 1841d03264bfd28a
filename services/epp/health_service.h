// grpc.health.v1: liveness always, every other name by readiness (endpoint-picker manifests probe
// several names).
#pragma once

#include <functional>

#include "grpc/health/v1/health.grpc.pb.h"
#include "llmd/log.h"

namespace llmd::epp {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // `ready` must be thread-safe and outlive the server.
  HealthService(std::function<bool()> ready, Logger logger)
      : ready_(std::move(ready)), logger_(std::move(logger)) {}

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::health::v1::HealthListRequest* request,
                                 grpc::health::v1::HealthListResponse* response) override;

 private:
  std::function<bool()> ready_;
  Logger logger_;
};

}  // namespace llmd::epp
