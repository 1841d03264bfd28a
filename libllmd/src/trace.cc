#include "llmd/trace.h"

#include "hex.h"
#include "llmd/uuid.h"

namespace llmd {
namespace {

constexpr size_t kVersion00Bytes = 55;

uint64_t NonZeroBits() {
  uint64_t bits = 0;
  while (bits == 0) bits = RandomBits();
  return bits;
}

bool HasDashes(std::string_view header) {
  return header[2] == '-' && header[35] == '-' && header[52] == '-';
}

}  // namespace

TraceContext TraceContext::NewRoot(bool sampled) {
  return {NonZeroBits(), NonZeroBits(), NonZeroBits(), sampled};
}

TraceContext TraceContext::Child() const {
  TraceContext child = *this;
  child.span_id = NonZeroBits();
  return child;
}

std::string TraceContext::TraceIdHex() const {
  std::string out;
  AppendHex(out, trace_id_high, 16);
  AppendHex(out, trace_id_low, 16);
  return out;
}

std::string TraceContext::SpanIdHex() const {
  std::string out;
  AppendHex(out, span_id, 16);
  return out;
}

std::string TraceContext::ToTraceparent() const {
  std::string out;
  out.reserve(kVersion00Bytes);
  out += "00-";
  AppendHex(out, trace_id_high, 16);
  AppendHex(out, trace_id_low, 16);
  out += '-';
  AppendHex(out, span_id, 16);
  out += sampled ? "-01" : "-00";
  return out;
}

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  if (header.size() < kVersion00Bytes || !HasDashes(header)) return std::nullopt;
  uint64_t version = 0, flags = 0;
  TraceContext context;
  if (!ReadHex(header.substr(0, 2), &version) || version == 0xFF ||
      !ReadHex(header.substr(3, 16), &context.trace_id_high) ||
      !ReadHex(header.substr(19, 16), &context.trace_id_low) ||
      !ReadHex(header.substr(36, 16), &context.span_id) || !ReadHex(header.substr(53, 2), &flags)) {
    return std::nullopt;
  }
  const bool longer = header.size() > kVersion00Bytes;
  if (longer && (version == 0 || header[kVersion00Bytes] != '-')) return std::nullopt;
  const bool zero_trace = context.trace_id_high == 0 && context.trace_id_low == 0;
  if (zero_trace || context.span_id == 0) return std::nullopt;
  context.sampled = (flags & 1) != 0;
  return context;
}

}  // namespace llmd
