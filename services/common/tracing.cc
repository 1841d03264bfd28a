#include "common/tracing.h"

#include <unistd.h>

#include <cstdlib>

#include "common/tls.h"
#include "llmd/http/client.h"

namespace llmd::services {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class HttpExporter final : public SpanExporter {
 public:
  HttpExporter(http::Runtime& runtime, http::Url to, std::shared_ptr<const http::TlsContext> tls,
               TracingOptions options)
      : client_(runtime, {.tls = std::move(tls)}),
        peer_(std::move(to.peer)),
        target_(std::move(to.target)),
        options_(std::move(options)) {}

  Status Export(std::span<const Span> spans) override {
    const bool as_json = options_.protocol == TracingOptions::Protocol::kHttpJson;
    http::RequestHead head;
    head.method = "POST";
    head.target = target_;
    head.headers.Set("Content-Type", as_json ? "application/json" : "application/x-protobuf");
    for (const auto& [name, value] : options_.headers) head.headers.Set(name, value);
    http::CallOptions call;
    call.first_byte_timeout = call.read_timeout = options_.timeout;
    std::string body = as_json ? OtlpJson(spans, options_.service_name)
                               : OtlpProtobuf(spans, options_.service_name);
    LLMD_ASSIGN_OR_RETURN(const http::Response reply,
                          client_.FetchBlocking(peer_, std::move(head), std::move(body), call));
    if (reply.head.status / 100 == 2) return OkStatus();
    return Unavailable(peer_.ToString() + target_ + " answered " +
                       std::to_string(reply.head.status));
  }

 private:
  http::Client client_;
  const http::HostPort peer_;
  const std::string target_;
  const TracingOptions options_;
};

StatusOr<std::unique_ptr<SpanExporter>> MakeExporter(http::Runtime& runtime,
                                                     const TracingOptions& options) {
  if (options.exporter == TracingOptions::Exporter::kConsole)
    return ConsoleExporter(FdLogSink(STDOUT_FILENO), options.service_name);
  if (options.protocol == TracingOptions::Protocol::kGrpc) return OtlpGrpcExporter(options);
  return OtlpHttpExporter(runtime, options);
}

}  // namespace

StatusOr<std::unique_ptr<SpanExporter>> OtlpHttpExporter(http::Runtime& runtime,
                                                         const TracingOptions& options) {
  StatusOr<http::Url> to = http::ParseUrl(options.endpoint);
  if (!to.ok()) return to.status().WithContext("OTLP endpoint");
  std::shared_ptr<const http::TlsContext> tls;
  if (to->tls) {
    LLMD_ASSIGN_OR_RETURN(const OtlpCertificates files, ReadOtlpCertificates(options));
    LLMD_ASSIGN_OR_RETURN(tls, http::TlsContext::CreateClient(
                                   {.ca = files.ca, .chain = files.certificate, .key = files.key}));
  }
  return std::unique_ptr<SpanExporter>(
      std::make_unique<HttpExporter>(runtime, std::move(*to), std::move(tls), options));
}

StatusOr<OtlpCertificates> ReadOtlpCertificates(const TracingOptions& options) {
  OtlpCertificates out;
  for (const auto& [path, text] : {std::pair(&options.ca_file, &out.ca),
                                   std::pair(&options.certificate_file, &out.certificate),
                                   std::pair(&options.key_file, &out.key)}) {
    if (path->empty()) continue;
    StatusOr<std::string> read = ReadPemFile(*path);
    if (!read.ok()) return read.status().WithContext("OTLP over TLS");
    *text = std::move(*read);
  }
  return out;
}

StatusOr<std::unique_ptr<Tracer>> MakeTracer(http::Runtime& runtime, MetricsRegistry& metrics,
                                             const Logger& logger, TracerSettings settings) {
  const auto get = [&settings](const char* name) -> std::string {
    const std::string_view asked = name;
    if (settings.otlp_endpoint.empty()) return Environment(name);
    if (asked == "OTEL_TRACES_EXPORTER") return "otlp";
    if (asked == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") return settings.otlp_endpoint;
    return Environment(name);
  };
  if (!settings.asked && get("OTEL_TRACES_EXPORTER").empty()) return std::unique_ptr<Tracer>();
  LLMD_ASSIGN_OR_RETURN(TracingOptions options,
                        TracingOptions::FromEnvironment(get, std::move(settings.service_name)));
  if (options.exporter == TracingOptions::Exporter::kNone) return std::unique_ptr<Tracer>();
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<SpanExporter> exporter, MakeExporter(runtime, options));
  return std::make_unique<Tracer>(std::move(options), std::move(exporter), metrics, logger);
}

#ifndef LLMD_WITH_GRPC
StatusOr<std::unique_ptr<SpanExporter>> OtlpGrpcExporter(const TracingOptions&) {
  return Unimplemented(
      "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: this build has no gRPC; use http/protobuf");
}
#endif

}  // namespace llmd::services
