// grpc.health.v1: liveness always, every other name by readiness (endpoint-picker manifests probe several names).
#pragma once

#include <functional>

#include "grpc/health/v1/health.grpc.pb.h"

namespace llmd::epp {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // `ready` must be thread-safe and outlive the server.
  explicit HealthService(std::function<bool()> ready) : ready_(std::move(ready)) {}

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const grpc::health::v1::HealthListRequest* request,
                                 grpc::health::v1::HealthListResponse* response) override;

 private:
  std::function<bool()> ready_;
};

}  // namespace llmd::epp
