// W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a request belongs to,
// across processes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llmd {

// One span's identity. Value type.
struct TraceContext {
  uint64_t trace_id_high = 0;
  uint64_t trace_id_low = 0;
  uint64_t span_id = 0;
  bool sampled = false;

  // A new root span.
  static TraceContext NewRoot(bool sampled);
  // A new span of the same trace, sampled as this one.
  TraceContext Child() const;

  // "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
  std::string ToTraceparent() const;
  std::string TraceIdHex() const;  // 32 digits
  std::string SpanIdHex() const;   // 16 digits

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

// Nothing when the header is malformed, of version ff, or names a zero id; the caller then starts a
// root. Versions above 00 are read by their first four fields, as the specification asks.
std::optional<TraceContext> ParseTraceparent(std::string_view header);

}  // namespace llmd
