#include "director/response_scan.h"

#include <algorithm>
#include <cstdint>

#include "llmd/json.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kUsage = "\"usage\"";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr size_t kMaxObject = 64 << 10;
constexpr size_t kMaxKey = 64;
constexpr size_t kMaxEscape = 6;  // bytes by which JSON may write one

// Where the key begins in it; npos when it is not there. Looks for its first two bytes, many places
// at a time: answers are full of quotes, but few come before a 'u'.
size_t FindUsage(std::string_view text) {
  constexpr size_t kBlock = 32;
  size_t at = 0;
  const auto in = [&](size_t end) {
    for (; at < end; ++at) {
      if (text[at] == kUsage[0] && text.compare(at, kUsage.size(), kUsage) == 0) return true;
    }
    return false;
  };
  while (at + kBlock + 1 <= text.size()) {
    const char* const block = text.data() + at;
    uint8_t hit = 0;
    for (size_t i = 0; i < kBlock; ++i)
      hit |= static_cast<uint8_t>(int{block[i] == kUsage[0]} & int{block[i + 1] == kUsage[1]});
    if (hit == 0)
      at += kBlock;
    else if (in(at + kBlock))
      return at;
  }
  return in(text.size()) ? at : std::string_view::npos;
}

bool IsBlank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string Quoted(std::string_view text) {
  std::string out;
  json::AppendQuoted(out, text);
  return out;
}

// With the quotes around it again.
std::string Enquoted(std::string_view raw) {
  return std::string(1, '"').append(raw).append(1, '"');
}

}  // namespace

void UsageScanner::Feed(std::string_view chunk,
                        const std::function<void(std::string_view)>& found) {
  while (!chunk.empty()) {
    if (state_ == State::kSearch && matched_ == 0) {
      chunk.remove_prefix(Search(chunk));
    } else if (state_ == State::kObject) {
      chunk.remove_prefix(Object(chunk, found));
    } else {
      Step(chunk.front());
      chunk.remove_prefix(1);
    }
  }
}

// Of a text in which no key has begun: goes to behind the first key, or to the text's end, which
// may hold a part of one. How many bytes that are.
size_t UsageScanner::Search(std::string_view text) {
  if (const size_t key = FindUsage(text); key != std::string_view::npos) {
    state_ = State::kColon;
    return key + kUsage.size();
  }
  for (matched_ = std::min(kUsage.size() - 1, text.size()); matched_ > 0; --matched_) {
    const std::string_view end = text.substr(text.size() - matched_);
    if (end[0] == kUsage[0] && kUsage.starts_with(end)) break;
  }
  return text.size();
}

void UsageScanner::Step(char c) {
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
      return;
  }
}

// Takes what belongs to the object; how many bytes that are.
size_t UsageScanner::Object(std::string_view text,
                            const std::function<void(std::string_view)>& found) {
  const size_t most = std::min(text.size(), kMaxObject + 1 - object_.size());
  size_t at = 0;
  while (at < most && depth_ > 0) {
    const char c = text[at++];
    if (escaped_) {
      escaped_ = false;
    } else if (in_string_) {
      escaped_ = c == '\\';
      in_string_ = c != '"';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{') {
      ++depth_;
    } else if (c == '}') {
      --depth_;
    }
  }
  object_.append(text.substr(0, at));
  if (depth_ == 0) found(object_);
  if (depth_ == 0 || object_.size() > kMaxObject) state_ = State::kSearch;
  return at;
}

ModelRestorer::ModelRestorer(std::string_view from, std::string_view to)
    : from_(from), to_(Quoted(to)), longest_(kMaxEscape * from.size() + 2) {}

std::string ModelRestorer::Feed(std::string_view chunk, bool end) {
  std::string out;
  out.reserve(held_.size() + chunk.size());
  for (const char c : chunk) Step(c, out);
  if (end) BreakString(out);
  return out;
}

void ModelRestorer::Step(char c, std::string& out) {
  if (text_ == Text::kUnknown && !IsBlank(c) && kByteOrderMark.find(c) == std::string_view::npos)
    text_ = c == '{' || c == '[' ? Text::kJson : Text::kEvents;
  const bool json = text_ == Text::kJson || (text_ == Text::kEvents && IsData(c, out));
  if (json)
    Json(c, out);
  else
    out += c;
  last_ = c;
}

bool ModelRestorer::IsData(char c, std::string& out) {
  if (c == '\n' || c == '\r') {
    if (c == '\n' && last_ == '\r') return false;
    // Whatever is open ends with its event; a name held back is none.
    if (line_ == Line::kStart && field_.empty()) depth_ = 0;
    if (in_ != In::kNothing) BreakString(out);
    line_ = Line::kStart;
    field_.clear();
    return false;
  }
  if (line_ != Line::kStart) return line_ == Line::kData;
  if (c == ':')
    line_ = field_ == "data" ? Line::kData : Line::kOther;
  else if (field_.size() < kMaxKey)
    field_ += c;
  return false;
}

void ModelRestorer::Json(char c, std::string& out) {
  if (in_ != In::kNothing) return JsonString(c, out);
  if (c == '"' && depth_ > 0) {
    BeginString();
    if (in_ == In::kName) {
      held_.assign(1, c);
      return;
    }
  } else if (c == '{' || c == '[') {
    Open(c);
  } else if (c == '}' || c == ']') {
    depth_ -= depth_ > 0 ? 1 : 0;
    after_colon_ = true;
  } else if (c == ':') {
    after_colon_ = true;
  } else if (c == ',') {
    after_colon_ = false;
  }
  out += c;
}

void ModelRestorer::Open(char c) {
  ++depth_;
  if (depth_ == 1) object_ = c == '{';
  if (depth_ == 2)
    inner_ = c == '{' && object_ && after_colon_ && (key_ == "message" || key_ == "response");
  after_colon_ = false;
}

void ModelRestorer::BeginString() {
  escaped_ = false;
  in_ = In::kString;
  if (!names_model()) return;
  if (!after_colon_) {
    in_ = In::kKey;
    key_.clear();
  } else if (key_ == "model") {
    in_ = In::kName;
  }
}

void ModelRestorer::JsonString(char c, std::string& out) {
  const bool ends = c == '"' && !escaped_;
  escaped_ = c == '\\' && !escaped_;
  if (in_ == In::kName) {
    held_ += c;
    if (ends) return EndName(out);
    if (held_.size() <= longest_) return;
    out += held_;
    held_.clear();
    in_ = In::kString;
    return;
  }
  if (in_ == In::kKey) {
    if (!ends && key_.size() < kMaxKey) key_ += c;
    if (ends && key_.find('\\') != std::string::npos)
      key_ = json::Unquote(Enquoted(key_)).value_or("");
  }
  if (ends) in_ = In::kNothing;
  out += c;
}

// JSON strings do not go over lines.
void ModelRestorer::BreakString(std::string& out) {
  out += held_;
  held_.clear();
  in_ = In::kNothing;
}

void ModelRestorer::EndName(std::string& out) {
  in_ = In::kNothing;
  const StatusOr<std::string> name = json::Unquote(held_);
  out += name.ok() && *name == from_ ? to_ : held_;
  held_.clear();
}

}  // namespace llmd::sched
