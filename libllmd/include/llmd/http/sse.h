// Server-sent events: frames out, frames in. The reader takes bytes split anywhere and keeps its
// state across chunks.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace llmd::http {

// "data: <json>\n\n".
std::string SseFrame(std::string_view data);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

// Splits a stream into events by the WHATWG rules (CR, LF or CRLF; comments; several data lines
// joined by LF). Bounded: an event longer than `max_event_bytes` is dropped and counted.
// Thread-compatible.
class SseReader {
 public:
  struct Event {
    std::string_view type;  // "" = message
    std::string_view data;
  };
  explicit SseReader(size_t max_event_bytes = 4 << 20) : max_event_bytes_(max_event_bytes) {}
  // Calls `on_event` for each event completed by these bytes.
  void Feed(std::string_view bytes, const std::function<void(const Event&)>& on_event);
  size_t dropped_events() const { return dropped_; }

 private:
  void Line(std::string_view line, const std::function<void(const Event&)>& on_event);
  size_t max_event_bytes_;
  std::string line_, data_, type_;
  bool has_data_ = false, skip_lf_ = false, overflow_ = false;
  size_t dropped_ = 0;
};

}  // namespace llmd::http
