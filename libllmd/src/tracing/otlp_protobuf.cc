#include <bit>

#include "llmd/tracing.h"

namespace llmd {
namespace {

// A protobuf message being written (https://protobuf.dev/programming-guides/encoding/).
class Message {
 public:
  void Bytes(int field, std::string_view value) {
    Tag(field, 2);
    Varint(value.size());
    out_ += value;
  }
  void Number(int field, uint64_t value) {
    Tag(field, 0);
    Varint(value);
  }
  void Fixed64(int field, uint64_t value) {
    Tag(field, 1);
    for (int i = 0; i < 8; ++i) out_ += static_cast<char>(value >> (8 * i));
  }
  void Fixed32(int field, uint32_t value) {
    Tag(field, 5);
    for (int i = 0; i < 4; ++i) out_ += static_cast<char>(value >> (8 * i));
  }
  void Nested(int field, const Message& value) { Bytes(field, value.out_); }
  std::string Take() { return std::move(out_); }

 private:
  void Tag(int field, int wire) {
    Varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire));
  }
  void Varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  std::string out_;
};

void BigEndian(std::string& out, uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}

Message KeyValue(std::string_view key, const SpanValue& value) {
  Message any;
  if (const auto* text = std::get_if<std::string>(&value)) any.Bytes(1, *text);
  if (const auto* flag = std::get_if<bool>(&value)) any.Number(2, *flag ? 1 : 0);
  if (const auto* number = std::get_if<int64_t>(&value))
    any.Number(3, static_cast<uint64_t>(*number));
  if (const auto* real = std::get_if<double>(&value))
    any.Fixed64(4, std::bit_cast<uint64_t>(*real));
  Message out;
  out.Bytes(1, key);
  out.Nested(2, any);
  return out;
}

Message SpanMessage(const Span& span) {
  Message out;
  std::string trace_id, span_id, parent;
  BigEndian(trace_id, span.context.trace_id_high);
  BigEndian(trace_id, span.context.trace_id_low);
  BigEndian(span_id, span.context.span_id);
  out.Bytes(1, trace_id);
  out.Bytes(2, span_id);
  if (span.parent_span_id != 0) {
    BigEndian(parent, span.parent_span_id);
    out.Bytes(4, parent);
  }
  out.Bytes(5, span.name);
  out.Number(6, static_cast<uint64_t>(span.kind));
  out.Fixed64(7, static_cast<uint64_t>(span.start_unix_nanos));
  out.Fixed64(8, static_cast<uint64_t>(span.end_unix_nanos));
  for (const auto& [key, value] : span.attributes) out.Nested(9, KeyValue(key, value));
  if (!span.error.empty()) {
    Message status;
    status.Bytes(2, span.error);
    status.Number(3, 2);  // STATUS_CODE_ERROR
    out.Nested(15, status);
  }
  out.Fixed32(16, span.context.sampled ? 1 : 0);
  return out;
}

}  // namespace

std::string OtlpProtobuf(std::span<const Span> spans, std::string_view service_name) {
  Message resource, scope, scope_spans, resource_spans, request;
  resource.Nested(1, KeyValue("service.name", std::string(service_name)));
  scope.Bytes(1, "llmd");
  scope_spans.Nested(1, scope);
  for (const Span& span : spans) scope_spans.Nested(2, SpanMessage(span));
  resource_spans.Nested(1, resource);
  resource_spans.Nested(2, scope_spans);
  request.Nested(1, resource_spans);
  return request.Take();
}

}  // namespace llmd
