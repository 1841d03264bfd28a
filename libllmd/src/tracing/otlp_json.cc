#include "hex.h"
#include "llmd/json.h"
#include "llmd/tracing.h"

namespace llmd {
namespace {

std::string Hex(uint64_t id) {
  std::string out;
  AppendHex(out, id, 16);
  return out;
}

// 64-bit integers are strings in protobuf's JSON.
json::Value AnyValue(const SpanValue& value) {
  if (const auto* text = std::get_if<std::string>(&value))
    return json::Object{{"stringValue", *text}};
  if (const auto* flag = std::get_if<bool>(&value)) return json::Object{{"boolValue", *flag}};
  if (const auto* number = std::get_if<int64_t>(&value))
    return json::Object{{"intValue", std::to_string(*number)}};
  return json::Object{{"doubleValue", std::get<double>(value)}};
}

json::Value Attributes(const std::vector<std::pair<std::string, SpanValue>>& attributes) {
  json::Array out;
  for (const auto& [key, value] : attributes)
    out.push_back(json::Object{{"key", key}, {"value", AnyValue(value)}});
  return out;
}

json::Value SpanJson(const Span& span) {
  json::Value out = json::Object{{"traceId", span.context.TraceIdHex()},
                                 {"spanId", span.context.SpanIdHex()},
                                 {"name", span.name},
                                 {"kind", static_cast<int>(span.kind)},
                                 {"startTimeUnixNano", std::to_string(span.start_unix_nanos)},
                                 {"endTimeUnixNano", std::to_string(span.end_unix_nanos)},
                                 {"attributes", Attributes(span.attributes)},
                                 {"flags", span.context.sampled ? 1 : 0}};
  if (span.parent_span_id != 0) out.Set("parentSpanId", Hex(span.parent_span_id));
  if (!span.error.empty()) out.Set("status", json::Object{{"code", 2}, {"message", span.error}});
  return out;
}

class Console final : public SpanExporter {
 public:
  Console(std::shared_ptr<LogSink> sink, std::string service_name)
      : sink_(std::move(sink)), service_name_(std::move(service_name)) {}
  Status Export(std::span<const Span> spans) override {
    for (const Span& span : spans) {
      json::Value line = json::Object{{"msg", "span"}, {"service", service_name_}};
      line.Set("span", SpanJson(span));
      sink_->Write(line.Dump() + "\n");
    }
    return OkStatus();
  }

 private:
  const std::shared_ptr<LogSink> sink_;
  const std::string service_name_;
};

}  // namespace

std::string OtlpJson(std::span<const Span> spans, std::string_view service_name) {
  json::Array all;
  for (const Span& span : spans) all.push_back(SpanJson(span));
  const std::vector<std::pair<std::string, SpanValue>> resource = {
      {"service.name", std::string(service_name)}};
  json::Array scopes;
  scopes.push_back(
      json::Object{{"scope", json::Object{{"name", "llmd"}}}, {"spans", std::move(all)}});
  json::Array resources;
  resources.push_back(json::Object{{"resource", json::Object{{"attributes", Attributes(resource)}}},
                                   {"scopeSpans", std::move(scopes)}});
  return json::Value(json::Object{{"resourceSpans", std::move(resources)}}).Dump();
}

std::unique_ptr<SpanExporter> ConsoleExporter(std::shared_ptr<LogSink> sink,
                                              std::string service_name) {
  return std::make_unique<Console>(std::move(sink), std::move(service_name));
}

}  // namespace llmd
