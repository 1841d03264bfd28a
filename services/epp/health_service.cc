#include "epp/health_service.h"

namespace llmd::epp {
namespace {

using grpc::health::v1::HealthCheckResponse;

constexpr std::string_view kPool = "pool/";

}  // namespace

HealthCheckResponse::ServingStatus HealthService::StatusOf(std::string_view service) const {
  const bool of_pool = service.starts_with(kPool);
  const bool ready = service == "liveness" || ready_(of_pool ? service.substr(kPool.size()) : "");
  return ready ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const grpc::health::v1::HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  const auto status = StatusOf(request->service());
  response->set_status(status);
  // The literals that people filter out of the picker's log by name.
  if (status == HealthCheckResponse::SERVING) {
    logger_.Log(LogLevel::kDebug, "gRPC health check serving", {{"service", request->service()}});
  } else {
    logger_.Log(LogLevel::kDefault, "gRPC health check not serving",
                {{"service", request->service()}});
  }
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* HealthService::List(grpc::CallbackServerContext* context,
                                              const grpc::health::v1::HealthListRequest*,
                                              grpc::health::v1::HealthListResponse* response) {
  for (const char* name : {"", "liveness", "readiness", "inference-extension",
                           "envoy.service.ext_proc.v3.ExternalProcessor"}) {
    (*response->mutable_statuses())[name].set_status(StatusOf(name));
  }
  for (const std::string& pool : pools_) {
    const std::string name = std::string(kPool) + pool;
    (*response->mutable_statuses())[name].set_status(StatusOf(name));
  }
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace llmd::epp
