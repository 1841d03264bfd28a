#include "epp/health_service.h"

namespace llmd::epp {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::health::v1::HealthListRequest;
using grpc::health::v1::HealthListResponse;

constexpr std::string_view kPool = "pool/";

// A call of one method, from its request to its answer; owns itself.
template <typename Request, typename Response>
class UnaryCall final : public CallTag {
 public:
  using Ask = void (HealthService::*)(grpc::ServerContext*, Request*,
                                      grpc::ServerAsyncResponseWriter<Response>*,
                                      grpc::CompletionQueue*, grpc::ServerCompletionQueue*, void*);
  using Answer = void (HealthService::*)(const Request&, Response&);

  static void Accept(HealthService& service, Ask ask, Answer answer,
                     grpc::ServerCompletionQueue& queue, LiveCalls& calls) {
    auto* call = new UnaryCall(service, ask, answer, queue, calls);
    (service.*ask)(&call->context_, &call->request_, &call->writer_, &queue, &queue, call);
  }
  void OnEvent(bool ok) override {
    if (answered_ || !ok) {  // the end, or the server is going down
      delete this;
      return;
    }
    Accept(service_, ask_, answer_, queue_, calls_);
    Response response;
    (service_.*answer_)(request_, response);
    answered_ = true;
    writer_.Finish(response, grpc::Status::OK, this);
  }

 private:
  UnaryCall(HealthService& service, Ask ask, Answer answer, grpc::ServerCompletionQueue& queue,
            LiveCalls& calls)
      : service_(service),
        ask_(ask),
        answer_(answer),
        queue_(queue),
        calls_(calls),
        writer_(&context_) {}

  HealthService& service_;
  const Ask ask_;
  const Answer answer_;
  grpc::ServerCompletionQueue& queue_;
  LiveCalls& calls_;
  const LiveCalls::Member alive_{calls_};
  grpc::ServerContext context_;
  Request request_;
  grpc::ServerAsyncResponseWriter<Response> writer_;
  bool answered_ = false;
};

// A call of Watch, which is refused.
class WatchCall final : public CallTag {
 public:
  static void Accept(HealthService& service, grpc::ServerCompletionQueue& queue, LiveCalls& calls) {
    auto* call = new WatchCall(service, queue, calls);
    service.RequestWatch(&call->context_, &call->request_, &call->writer_, &queue, &queue, call);
  }
  void OnEvent(bool ok) override {
    if (answered_ || !ok) {
      delete this;
      return;
    }
    Accept(service_, queue_, calls_);
    answered_ = true;
    writer_.Finish({grpc::StatusCode::UNIMPLEMENTED, "Watch is not implemented"}, this);
  }

 private:
  WatchCall(HealthService& service, grpc::ServerCompletionQueue& queue, LiveCalls& calls)
      : service_(service), queue_(queue), calls_(calls), writer_(&context_) {}

  HealthService& service_;
  grpc::ServerCompletionQueue& queue_;
  LiveCalls& calls_;
  const LiveCalls::Member alive_{calls_};
  grpc::ServerContext context_;
  HealthCheckRequest request_;
  grpc::ServerAsyncWriter<HealthCheckResponse> writer_;
  bool answered_ = false;
};

}  // namespace

HealthCheckResponse::ServingStatus HealthService::StatusOf(std::string_view service) const {
  const bool of_pool = service.starts_with(kPool);
  const bool ready = service == "liveness" || ready_(of_pool ? service.substr(kPool.size()) : "");
  return ready ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

void HealthService::Accept(grpc::ServerCompletionQueue& queue, LiveCalls& calls) {
  UnaryCall<HealthCheckRequest, HealthCheckResponse>::Accept(
      *this, &HealthService::RequestCheck, &HealthService::AnswerCheck, queue, calls);
  UnaryCall<HealthListRequest, HealthListResponse>::Accept(
      *this, &HealthService::RequestList, &HealthService::AnswerList, queue, calls);
  WatchCall::Accept(*this, queue, calls);
}

void HealthService::AnswerCheck(const HealthCheckRequest& request, HealthCheckResponse& response) {
  const auto status = StatusOf(request.service());
  response.set_status(status);
  // The literals that people filter out of the picker's log by name.
  if (status == HealthCheckResponse::SERVING) {
    logger_.Log(LogLevel::kDebug, "gRPC health check serving", {{"service", request.service()}});
  } else {
    logger_.Log(LogLevel::kDefault, "gRPC health check not serving",
                {{"service", request.service()}});
  }
}

void HealthService::AnswerList(const HealthListRequest&, HealthListResponse& response) {
  for (const char* name : {"", "liveness", "readiness", "inference-extension",
                           "envoy.service.ext_proc.v3.ExternalProcessor"}) {
    (*response.mutable_statuses())[name].set_status(StatusOf(name));
  }
  for (const std::string& pool : pools_) {
    const std::string name = std::string(kPool) + pool;
    (*response.mutable_statuses())[name].set_status(StatusOf(name));
  }
}

}  // namespace llmd::epp
