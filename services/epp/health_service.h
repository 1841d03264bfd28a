// grpc.health.v1: liveness always, pool/NAME by the readiness of that pool, every other name by
// that of the process (endpoint-picker manifests probe several names). Watch is not implemented,
// as in the field.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epp/call_queues.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "llmd/log.h"

namespace llmd::epp {

class HealthService final : public grpc::health::v1::Health::AsyncService {
 public:
  // `ready` (of a pool; "" = of the process) must be thread-safe and outlive the server. `pools`
  // are listed.
  HealthService(std::function<bool(std::string_view pool)> ready, std::vector<std::string> pools,
                Logger logger)
      : ready_(std::move(ready)), pools_(std::move(pools)), logger_(std::move(logger)) {}

  // Takes the next calls that come to the queue, and after them, by itself, those behind.
  void Accept(grpc::ServerCompletionQueue& queue, LiveCalls& calls);

  void AnswerCheck(const grpc::health::v1::HealthCheckRequest& request,
                   grpc::health::v1::HealthCheckResponse& response);
  void AnswerList(const grpc::health::v1::HealthListRequest& request,
                  grpc::health::v1::HealthListResponse& response);

 private:
  grpc::health::v1::HealthCheckResponse::ServingStatus StatusOf(std::string_view service) const;

  const std::function<bool(std::string_view pool)> ready_;
  const std::vector<std::string> pools_;
  Logger logger_;
};

}  // namespace llmd::epp
