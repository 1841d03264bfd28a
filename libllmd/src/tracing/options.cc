#include <charconv>
#include <cmath>

#include "llmd/tracing.h"

namespace llmd {
namespace {

using Get = std::function<std::string(const char* name)>;

Status Bad(const char* name, const std::string& value, const char* expected) {
  return InvalidArgument(std::string(name) + "='" + value + "': expected " + expected);
}

// The variable for traces wins over the one for all signals.
std::string Either(const Get& get, const std::string& what) {
  const std::string traces = get(("OTEL_EXPORTER_OTLP_TRACES_" + what).c_str());
  return traces.empty() ? get(("OTEL_EXPORTER_OTLP_" + what).c_str()) : traces;
}

Status ReadExporter(const Get& get, TracingOptions& out) {
  const std::string text = get("OTEL_TRACES_EXPORTER");
  if (text == "otlp") {
    out.exporter = TracingOptions::Exporter::kOtlp;
  } else if (text == "none") {
    out.exporter = TracingOptions::Exporter::kNone;
  } else if (!text.empty() && text != "console") {
    return Bad("OTEL_TRACES_EXPORTER", text, "console, otlp or none");
  }
  if (get("OTEL_SDK_DISABLED") == "true") out.exporter = TracingOptions::Exporter::kNone;
  return OkStatus();
}

Status ReadProtocol(const Get& get, TracingOptions& out) {
  const std::string text = Either(get, "PROTOCOL");
  if (text == "http/protobuf") {
    out.protocol = TracingOptions::Protocol::kHttpProtobuf;
  } else if (text == "http/json") {
    out.protocol = TracingOptions::Protocol::kHttpJson;
  } else if (!text.empty() && text != "grpc") {
    return Bad("OTEL_EXPORTER_OTLP_PROTOCOL", text, "grpc, http/protobuf or http/json");
  }
  return OkStatus();
}

void ReadEndpoint(const Get& get, TracingOptions& out) {
  const bool grpc = out.protocol == TracingOptions::Protocol::kGrpc;
  if (!grpc) out.endpoint = "http://localhost:4318/v1/traces";
  const std::string traces = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
  std::string all = get("OTEL_EXPORTER_OTLP_ENDPOINT");
  if (!traces.empty()) {
    out.endpoint = traces;
  } else if (!all.empty()) {
    while (all.ends_with('/')) all.pop_back();
    out.endpoint = grpc ? all : all + "/v1/traces";
  }
}

Status ReadCertificates(const Get& get, TracingOptions& out) {
  out.ca_file = Either(get, "CERTIFICATE");
  out.certificate_file = Either(get, "CLIENT_CERTIFICATE");
  out.key_file = Either(get, "CLIENT_KEY");
  if (out.certificate_file.empty() == out.key_file.empty()) return OkStatus();
  return Bad("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", out.certificate_file,
             "it together with OTEL_EXPORTER_OTLP_CLIENT_KEY");
}

// "a=1,b=2", as in the W3C baggage header without properties.
Status ReadHeaders(const Get& get, TracingOptions& out) {
  const std::string text = Either(get, "HEADERS");
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view one = rest.substr(0, comma);
    const size_t equals = one.find('=');
    if (equals == std::string_view::npos || equals == 0)
      return Bad("OTEL_EXPORTER_OTLP_HEADERS", text, "key=value pairs between commas");
    out.headers.emplace_back(one.substr(0, equals), one.substr(equals + 1));
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  return OkStatus();
}

Status ReadSampler(const Get& get, TracingOptions& out) {
  std::string text = get("OTEL_TRACES_SAMPLER");
  const std::string arg = get("OTEL_TRACES_SAMPLER_ARG");
  const std::string whole = text;
  if (text.empty()) text = "parentbased_traceidratio";
  out.parent_based = text.starts_with("parentbased_");
  if (out.parent_based) text.erase(0, std::string_view("parentbased_").size());
  if (text == "always_on") {
    out.sampler = TracingOptions::Sampler::kAlwaysOn;
  } else if (text == "always_off") {
    out.sampler = TracingOptions::Sampler::kAlwaysOff;
  } else if (text != "traceidratio") {
    return Bad("OTEL_TRACES_SAMPLER", whole,
               "[parentbased_]always_on, [parentbased_]always_off or [parentbased_]traceidratio");
  }
  // A ratio sampler that is named and has no argument samples all.
  if (!whole.empty()) out.ratio = 1;
  if (arg.empty() || text != "traceidratio") return OkStatus();
  const auto [end, error] = std::from_chars(arg.data(), arg.data() + arg.size(), out.ratio);
  if (error != std::errc() || end != arg.data() + arg.size() || !(out.ratio >= 0 && out.ratio <= 1))
    return Bad("OTEL_TRACES_SAMPLER_ARG", arg, "a ratio of 0 to 1");
  return OkStatus();
}

Status ReadCount(const Get& get, const char* name, int64_t max, int64_t* out) {
  const std::string text = get(name);
  if (text.empty()) return OkStatus();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  if (error != std::errc() || end != text.data() + text.size() || *out < 1 || *out > max)
    return Bad(name, text, ("a number of 1 to " + std::to_string(max)).c_str());
  return OkStatus();
}

Status ReadBatching(const Get& get, TracingOptions& out) {
  int64_t queue = static_cast<int64_t>(out.max_queue), batch = static_cast<int64_t>(out.max_batch);
  int64_t delay_ms = 5000, timeout_ms = 10'000;
  LLMD_RETURN_IF_ERROR(ReadCount(get, "OTEL_BSP_MAX_QUEUE_SIZE", 1 << 20, &queue));
  LLMD_RETURN_IF_ERROR(ReadCount(get, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1 << 16, &batch));
  LLMD_RETURN_IF_ERROR(ReadCount(get, "OTEL_BSP_SCHEDULE_DELAY", 3'600'000, &delay_ms));
  LLMD_RETURN_IF_ERROR(ReadCount(get, "OTEL_EXPORTER_OTLP_TIMEOUT", 600'000, &timeout_ms));
  LLMD_RETURN_IF_ERROR(ReadCount(get, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 600'000, &timeout_ms));
  out.max_queue = static_cast<size_t>(queue);
  out.max_batch = static_cast<size_t>(std::min(batch, queue));
  out.schedule_delay = std::chrono::milliseconds(delay_ms);
  out.timeout = std::chrono::milliseconds(timeout_ms);
  return OkStatus();
}

}  // namespace

StatusOr<TracingOptions> TracingOptions::FromEnvironment(const Get& get, std::string service_name) {
  TracingOptions out;
  out.service_name = std::move(service_name);
  if (std::string name = get("OTEL_SERVICE_NAME"); !name.empty()) out.service_name = name;
  LLMD_RETURN_IF_ERROR(ReadExporter(get, out));
  LLMD_RETURN_IF_ERROR(ReadProtocol(get, out));
  ReadEndpoint(get, out);
  LLMD_RETURN_IF_ERROR(ReadCertificates(get, out));
  LLMD_RETURN_IF_ERROR(ReadHeaders(get, out));
  LLMD_RETURN_IF_ERROR(ReadSampler(get, out));
  LLMD_RETURN_IF_ERROR(ReadBatching(get, out));
  return out;
}

}  // namespace llmd
