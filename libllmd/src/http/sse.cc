#include "llmd/http/sse.h"

namespace llmd::http {

std::string SseFrame(std::string_view data) {
  std::string frame;
  frame.reserve(data.size() + 8);
  frame.append("data: ").append(data).append("\n\n");
  return frame;
}

void SseReader::Feed(std::string_view bytes, const std::function<void(const Event&)>& on_event) {
  while (!bytes.empty()) {
    if (skip_lf_) {
      skip_lf_ = false;
      if (bytes.front() == '\n') bytes.remove_prefix(1);
      continue;
    }
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    overflow_ |= line_.size() + data_.size() + part.size() > max_event_bytes_;
    const bool split = end == std::string_view::npos || !line_.empty();
    if (overflow_) {
      // Of a line that is thrown away only its being a blank one matters: one byte stands for it.
      if (!part.empty() || !line_.empty()) line_.assign(1, ':');
    } else if (split) {
      line_.append(part);
    }
    if (end == std::string_view::npos) return;
    Line(overflow_ || split ? std::string_view(line_) : part, on_event);
    line_.clear();
    skip_lf_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
  }
}

void SseReader::Line(std::string_view line, const std::function<void(const Event&)>& on_event) {
  if (line.empty()) {
    if (overflow_) {
      ++dropped_;
    } else if (has_data_) {
      on_event({type_, data_});
    }
    overflow_ = has_data_ = false;
    data_.clear();
    type_.clear();
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value =
      colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) data_ += '\n';
    data_.append(value);
    has_data_ = true;
  } else if (field == "event") {
    type_ = value;
  }
}

}  // namespace llmd::http
