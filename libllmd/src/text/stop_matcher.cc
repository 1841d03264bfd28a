#include <algorithm>
#include <utility>

#include "llmd/text/detokenizer.h"

namespace llmd::text {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_in_output)
    : stops_(std::move(stops)), include_(include_in_output) {}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  if (matched_ >= 0) return {"", matched_};
  held_.append(text);
  size_t start = 0, end = std::string::npos;
  for (size_t i = 0; i < stops_.size(); ++i) {
    if (stops_[i].empty()) continue;
    const size_t at = held_.find(stops_[i]);
    if (at == std::string::npos || at + stops_[i].size() >= end) continue;
    start = at;
    end = at + stops_[i].size();
    matched_ = static_cast<int>(i);
  }
  if (matched_ < 0) return {TakeSafe(), -1};
  Result result{held_.substr(0, include_ ? end : start), matched_};
  held_.clear();
  return result;
}

// Everything but the longest end of the text that begins a stop string.
std::string StopMatcher::TakeSafe() {
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string safe = held_.substr(0, held_.size() - keep);
  held_.erase(0, safe.size());
  return safe;
}

std::string StopMatcher::Finish() {
  return std::exchange(held_, {});
}

}  // namespace llmd::text
