// The tracer of --tracing, set up by OpenTelemetry's environment variables.
#pragma once

#include <memory>
#include <string>

#include "llmd/http/runtime.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"
#include "llmd/tracing.h"

namespace llmd::services {

struct TracerSettings {
  std::string service_name;  // where OTEL_SERVICE_NAME says nothing
  bool asked = false;        // by a flag
  // OTLP to this address, whatever the variables say of exporter and address; "" = as they say.
  std::string otlp_endpoint;
};

// Null when OTEL_TRACES_EXPORTER is "none", and without that variable unless `asked`: then spans go
// to the console. INVALID_ARGUMENT names the variable that is wrong. `runtime` outlives the tracer.
StatusOr<std::unique_ptr<Tracer>> MakeTracer(http::Runtime& runtime, MetricsRegistry& metrics,
                                             const Logger& logger, TracerSettings settings);

// POSTs each batch to options.endpoint, as protobuf or JSON. INVALID_ARGUMENT when that is no
// http[s]:// address or a certificate cannot be read.
StatusOr<std::unique_ptr<SpanExporter>> OtlpHttpExporter(http::Runtime& runtime,
                                                         const TracingOptions& options);
// TraceService.Export over gRPC, with TLS when options.endpoint is https:; UNIMPLEMENTED in builds
// without it.
StatusOr<std::unique_ptr<SpanExporter>> OtlpGrpcExporter(const TracingOptions& options);

// The PEM texts of the files that the options name; "" of those they do not.
struct OtlpCertificates {
  std::string ca, certificate, key;
};
StatusOr<OtlpCertificates> ReadOtlpCertificates(const TracingOptions& options);

}  // namespace llmd::services
