// The ext_proc service over gRPC: one reactor a stream, no thread of its own (gRPC's callback
// threads run the events).
#pragma once

#include <atomic>
#include <memory>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"
#include "epp/processor.h"
#include "llmd/metrics.h"

namespace llmd::epp {

class ExtProcService final
    : public envoy::service::ext_proc::v3::ExternalProcessor::CallbackService {
 public:
  // `director` must outlive the gRPC server.
  ExtProcService(sched::Director& director, ProcessorOptions options, MetricsRegistry& metrics);

  grpc::ServerBidiReactor<envoy::service::ext_proc::v3::ProcessingRequest,
                          envoy::service::ext_proc::v3::ProcessingResponse>*
  Process(grpc::CallbackServerContext* context) override;

 private:
  sched::Director& director_;
  const ProcessorOptions options_;
  Gauge& inflight_;
};

}  // namespace llmd::epp
