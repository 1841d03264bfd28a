#include "director/response_scan.h"

#include <cstring>

#include "llmd/json.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kUsage = "\"usage\"";
constexpr std::string_view kModel = "\"model\"";
constexpr size_t kMaxObject = 64 << 10;
constexpr size_t kMaxBlanks = 16;

bool IsBlank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

}  // namespace

void UsageScanner::Feed(std::string_view chunk,
                        const std::function<void(std::string_view)>& found) {
  for (size_t i = 0; i < chunk.size(); ++i) {
    // Most bytes are no quote: skip to the next one.
    if (state_ == State::kSearch && matched_ == 0) {
      const void* quote = std::memchr(chunk.data() + i, '"', chunk.size() - i);
      if (quote == nullptr) return;
      i = static_cast<size_t>(static_cast<const char*>(quote) - chunk.data());
    }
    Step(chunk[i], found);
  }
}

void UsageScanner::Step(char c, const std::function<void(std::string_view)>& found) {
  switch (state_) {
    case State::kSearch:
      if (c == kUsage[matched_]) {
        if (++matched_ < kUsage.size()) return;
        state_ = State::kColon;
        matched_ = 0;
      } else {
        matched_ = c == '"' ? 1 : 0;
      }
      return;
    case State::kColon:
      if (c == ':')
        state_ = State::kValue;
      else if (!IsBlank(c))
        state_ = State::kSearch;
      return;
    case State::kValue:
      if (IsBlank(c)) return;
      state_ = c == '{' ? State::kObject : State::kSearch;
      object_.assign(1, c);
      depth_ = 1;
      in_string_ = escaped_ = false;
      return;
    case State::kObject:
      break;
  }
  object_ += c;
  if (escaped_) {
    escaped_ = false;
  } else if (in_string_) {
    escaped_ = c == '\\';
    in_string_ = c != '"';
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{') {
    ++depth_;
  } else if (c == '}' && --depth_ == 0) {
    found(object_);
    state_ = State::kSearch;
  }
  if (object_.size() > kMaxObject) state_ = State::kSearch;
}

ModelRestorer::ModelRestorer(std::string_view from, std::string_view to) {
  json::AppendQuoted(from_, from);
  json::AppendQuoted(to_, to);
}

size_t ModelRestorer::Match(std::string_view text, size_t at) const {
  const auto prefix = [&](std::string_view want) {
    const std::string_view have = text.substr(at, want.size());
    if (have != want.substr(0, have.size())) return size_t{0};
    at += have.size();
    return have.size() == want.size() ? size_t{1} : std::string_view::npos;
  };
  const size_t begin = at;
  if (const size_t key = prefix(kModel); key != 1) return key;
  if (const size_t colon = prefix(":"); colon != 1) return colon;
  for (size_t blanks = 0; at < text.size() && IsBlank(text[at]) && blanks < kMaxBlanks; ++blanks)
    ++at;
  if (const size_t name = prefix(from_); name != 1) return name;
  return at - begin;
}

std::string ModelRestorer::Feed(std::string_view chunk, bool end) {
  const std::string text = std::move(held_) + std::string(chunk);
  held_.clear();
  std::string out;
  size_t done = 0;
  for (size_t at = text.find('"'); at != std::string::npos; at = text.find('"', at)) {
    const size_t length = Match(text, at);
    if (length == std::string::npos && !end) {
      held_ = text.substr(at);
      return out + text.substr(done, at - done);
    }
    if (length == 0 || length == std::string::npos) {
      ++at;
      continue;
    }
    out.append(text, done, at + length - from_.size() - done).append(to_);
    at += length;
    done = at;
  }
  return out + text.substr(done);
}

}  // namespace llmd::sched
