#include "common/tracing.h"

#include <unistd.h>

#include <cstdlib>

#include "llmd/http/client.h"

namespace llmd::services {
namespace {

constexpr std::string_view kPlain = "http://";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class HttpExporter final : public SpanExporter {
 public:
  HttpExporter(http::Runtime& runtime, http::HostPort peer, std::string target,
               TracingOptions options)
      : client_(runtime, {}),
        peer_(std::move(peer)),
        target_(std::move(target)),
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
  std::string_view rest = options.endpoint;
  if (!rest.starts_with(kPlain)) {
    return InvalidArgument("OTLP endpoint '" + options.endpoint +
                           "': expected http://host:port/path (TLS is not built)");
  }
  rest.remove_prefix(kPlain.size());
  const size_t slash = rest.find('/');
  std::string authority(rest.substr(0, slash));
  if (authority.find(':') == std::string::npos) authority += ":80";
  StatusOr<http::HostPort> peer = http::ParseHostPort(authority);
  if (!peer.ok()) return peer.status().WithContext("OTLP endpoint '" + options.endpoint + "'");
  std::string target(slash == std::string_view::npos ? "/" : rest.substr(slash));
  return std::unique_ptr<SpanExporter>(
      std::make_unique<HttpExporter>(runtime, std::move(*peer), std::move(target), options));
}

StatusOr<std::unique_ptr<Tracer>> MakeTracer(http::Runtime& runtime, MetricsRegistry& metrics,
                                             const Logger& logger, std::string service_name,
                                             bool asked) {
  if (!asked && Environment("OTEL_TRACES_EXPORTER").empty()) return std::unique_ptr<Tracer>();
  LLMD_ASSIGN_OR_RETURN(TracingOptions options,
                        TracingOptions::FromEnvironment(Environment, std::move(service_name)));
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
