#include "common/answer_meter.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace llmd::services {
namespace {

constexpr std::string_view kKey = "\"usage\"";
constexpr size_t kRare = 4;  // where its 'g' stands
constexpr size_t kMaxObject = 4096;
// What line_ counts: the bytes of the field's name, then that data is awaited, then nothing.
constexpr std::string_view kField = "data:";
constexpr uint8_t kAtData = kField.size(), kSkip = kField.size() + 1;

bool IsBlank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

size_t SkipBlanks(std::string_view text, size_t at) {
  while (at < text.size() && IsBlank(text[at])) ++at;
  return at;
}

}  // namespace

void AnswerMeter::Begin(bool events, bool encoded) {
  reads_ = !encoded;
  events_on_ = events && !encoded;
  state_ = State::kKey;
  matched_ = line_ = 0;
  in_string_ = escaped_ = false;
  object_.clear();
  events_ = 0;
  prompt_tokens_ = completion_tokens_ = -1;
}

int64_t AnswerMeter::completion_tokens() const {
  return estimated() ? events_ : completion_tokens_;
}

// The marker of the end is no event.
void AnswerMeter::CountEvents(std::string_view piece) {
  for (size_t i = 0; i < piece.size(); ++i) {
    if (line_ == kSkip) {
      const void* end = std::memchr(piece.data() + i, '\n', piece.size() - i);
      if (end == nullptr) return;
      i = static_cast<size_t>(static_cast<const char*>(end) - piece.data());
      line_ = 0;
    } else if (piece[i] == '\n') {
      line_ = 0;
    } else if (line_ < kAtData) {
      line_ = piece[i] == kField[line_] ? line_ + 1 : kSkip;
    } else if (piece[i] != ' ') {
      if (piece[i] != '[') ++events_;
      line_ = kSkip;
    }
  }
}

// Past the key, or the piece's size when it is not in there.
size_t AnswerMeter::FindKey(std::string_view piece) {
  if (matched_ > 0) {
    const std::string_view rest = kKey.substr(matched_);
    const size_t n = std::min(rest.size(), piece.size());
    if (piece.substr(0, n) == rest.substr(0, n)) {
      matched_ = static_cast<uint8_t>(matched_ + n);
      if (matched_ < kKey.size()) return piece.size();
      state_ = State::kColon;
      matched_ = 0;
      return n;
    }
    matched_ = 0;
  }
  // By its rarest byte.
  for (size_t at = kRare; at < piece.size(); ++at) {
    const void* const found = std::memchr(piece.data() + at, kKey[kRare], piece.size() - at);
    if (found == nullptr) break;
    at = static_cast<size_t>(static_cast<const char*>(found) - piece.data());
    if (piece.substr(at - kRare, kKey.size()) != kKey) continue;
    state_ = State::kColon;
    return at - kRare + kKey.size();
  }
  for (size_t n = std::min(kKey.size() - 1, piece.size()); n > 0; --n) {
    if (!piece.ends_with(kKey.substr(0, n))) continue;
    matched_ = static_cast<uint8_t>(n);
    break;
  }
  return piece.size();
}

void AnswerMeter::Step(char c) {
  switch (state_) {
    case State::kKey:
      return;
    case State::kColon:
      if (c == ':')
        state_ = State::kValue;
      else if (!IsBlank(c))
        state_ = State::kKey;
      return;
    case State::kValue:
      if (IsBlank(c)) return;
      state_ = c == '{' ? State::kObject : State::kKey;
      object_.assign(1, c);
      depth_ = 1;
      in_string_ = escaped_ = false;
      return;
    case State::kObject:
      break;
  }
  if (object_.size() < kMaxObject) object_ += c;
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
    state_ = State::kKey;
    (void)Read(object_);
  }
}

int64_t* AnswerMeter::CountOf(std::string_view key) {
  if (key == "prompt_tokens" || key == "input_tokens") return &prompt_tokens_;
  if (key == "completion_tokens" || key == "output_tokens") return &completion_tokens_;
  return nullptr;
}

// Past the object that `text` begins with, or npos when it does not end in there. The last one
// counts, member by member: Anthropic's first event has the prompt's, its last the answer's.
size_t AnswerMeter::Read(std::string_view text) {
  int depth = 0;
  size_t begin = 0, end = 0;  // of the last string
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '{') {
      ++depth;
    } else if (c == '}') {
      if (--depth == 0) return at + 1;
    } else if (c == '"') {
      begin = ++at;
      while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
      end = std::min(at, text.size());
    } else if (c == ':') {
      int64_t* const count = CountOf(text.substr(begin, end - begin));
      if (count == nullptr) continue;
      at = SkipBlanks(text, at + 1);
      int64_t value = 0;
      const auto [rest, error] =
          std::from_chars(text.data() + at, text.data() + text.size(), value);
      if (error == std::errc() && value >= 0) *count = value;
      --at;  // the loop's next is the value
    }
  }
  return std::string_view::npos;
}

// The usual case, behind the key: the whole object is in this piece. What was read of it; 0 = it is
// to be read step by step.
size_t AnswerMeter::ReadWhole(std::string_view rest) {
  size_t at = SkipBlanks(rest, 0);
  if (at == rest.size() || rest[at] != ':') return 0;
  at = SkipBlanks(rest, at + 1);
  if (at == rest.size() || rest[at] != '{') return 0;
  const int64_t prompt = prompt_tokens_, completion = completion_tokens_;
  const size_t size = Read(rest.substr(at));
  if (size == std::string_view::npos) {  // half a number may have been read
    prompt_tokens_ = prompt;
    completion_tokens_ = completion;
    return 0;
  }
  state_ = State::kKey;
  return at + size;
}

void AnswerMeter::Take(std::string_view piece) {
  if (!reads_) return;
  if (events_on_) CountEvents(piece);
  while (!piece.empty()) {
    if (state_ == State::kKey) {
      piece.remove_prefix(FindKey(piece));
      if (state_ == State::kColon) piece.remove_prefix(ReadWhole(piece));
    } else {
      Step(piece.front());
      piece.remove_prefix(1);
    }
  }
}

}  // namespace llmd::services
