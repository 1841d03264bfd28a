// OTLP over gRPC without generated code: the request is written by core, the reply is not read.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "common/tracing.h"

namespace llmd::services {
namespace {

constexpr char kMethod[] = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

std::string Target(std::string_view endpoint) {
  const size_t scheme = endpoint.find("://");
  if (scheme != std::string_view::npos) endpoint.remove_prefix(scheme + 3);
  return std::string(endpoint.substr(0, endpoint.find('/')));
}

class GrpcExporter final : public SpanExporter {
 public:
  GrpcExporter(TracingOptions options, const std::shared_ptr<grpc::ChannelCredentials>& credentials)
      : options_(std::move(options)),
        stub_(grpc::CreateChannel(Target(options_.endpoint), credentials)) {}

  Status Export(std::span<const Span> spans) override {
    const grpc::Slice slice(OtlpProtobuf(spans, options_.service_name));
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer reply;
    grpc::ClientContext context;
    context.set_deadline(
        std::chrono::system_clock::now() +
        std::chrono::duration_cast<std::chrono::system_clock::duration>(options_.timeout));
    for (const auto& [name, value] : options_.headers) context.AddMetadata(Lower(name), value);
    grpc::CompletionQueue queue;
    grpc::Status status;
    const auto call = stub_.PrepareUnaryCall(&context, kMethod, request, &queue);
    call->StartCall();
    call->Finish(&reply, &status, this);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);  // the deadline bounds it
    if (status.ok()) return OkStatus();
    return Unavailable("OTLP collector " + options_.endpoint + ": " + status.error_message());
  }

 private:
  static std::string Lower(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return name;
  }
  const TracingOptions options_;
  grpc::GenericStub stub_;
};

}  // namespace

StatusOr<std::unique_ptr<SpanExporter>> OtlpGrpcExporter(const TracingOptions& options) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.endpoint.starts_with("https://")) {
    LLMD_ASSIGN_OR_RETURN(const OtlpCertificates files, ReadOtlpCertificates(options));
    credentials = grpc::SslCredentials({files.ca, files.key, files.certificate});
  }
  return std::unique_ptr<SpanExporter>(std::make_unique<GrpcExporter>(options, credentials));
}

}  // namespace llmd::services
