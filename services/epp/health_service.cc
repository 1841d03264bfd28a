#include "epp/health_service.h"

namespace llmd::epp {
namespace {

using grpc::health::v1::HealthCheckResponse;

HealthCheckResponse::ServingStatus StatusOf(std::string_view service, bool ready) {
  if (service == "liveness" || ready) return HealthCheckResponse::SERVING;
  return HealthCheckResponse::NOT_SERVING;
}

}  // namespace

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const grpc::health::v1::HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  const auto status = StatusOf(request->service(), ready_());
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
  const bool ready = ready_();
  for (const char* name : {"", "liveness", "readiness", "inference-extension",
                           "envoy.service.ext_proc.v3.ExternalProcessor"}) {
    (*response->mutable_statuses())[name].set_status(StatusOf(name, ready));
  }
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace llmd::epp
