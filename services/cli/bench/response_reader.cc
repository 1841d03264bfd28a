#include "cli/bench/response_reader.h"

#include <algorithm>
#include <charconv>

#include "llmd/format.h"
#include "llmd/json.h"

namespace llmd::bench {
namespace {

constexpr auto kNone = std::string_view::npos;

// What stands behind the first `"name":` of a JSON text, blanks skipped; empty when there is none.
// Inside a JSON string the name's quotes would be escaped, so that this finds keys only.
std::string_view Behind(std::string_view json, std::string_view quoted_name) {
  size_t at = json.find(quoted_name);
  if (at == kNone) return {};
  json.remove_prefix(at + quoted_name.size());
  at = json.find_first_not_of(" \t");
  if (at == kNone || json[at] != ':') return {};
  at = json.find_first_not_of(" \t", at + 1);
  return at == kNone ? std::string_view() : json.substr(at);
}

// Up to the quote that ends a string which began before.
std::string_view StringRest(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return text.substr(0, i);
    }
  }
  return {};
}

// The text of an event, between its quotes; "" for none or an empty one.
std::string_view ContentOf(std::string_view data) {
  for (const std::string_view name : {"\"content\"", "\"text\""}) {
    const std::string_view value = Behind(data, name);
    if (value.size() > 1 && value[0] == '"' && value[1] != '"') return StringRest(value.substr(1));
  }
  return {};
}

// Tokens that are not part of the answer's text: thoughts and calls of tools.
bool HasOtherToken(std::string_view data) {
  for (const std::string_view name : {"\"reasoning_content\"", "\"reasoning\""}) {
    const std::string_view value = Behind(data, name);
    if (value.size() > 1 && value[0] == '"' && value[1] != '"') return true;
  }
  return Behind(data, "\"tool_calls\"").starts_with("[{");
}

uint64_t IntegerBehind(std::string_view json, std::string_view quoted_name, bool* found) {
  const std::string_view value = Behind(json, quoted_name);
  uint64_t out = 0;
  const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), out);
  *found = ec == std::errc{} && !value.empty();
  return *found ? out : 0;
}

}  // namespace

void ResponseReader::Start(const Want& want) {
  want_ = want;
  answer_ = {};
  decoder_ = http::BodyDecoder();
  framing_ = {};
  kept_.clear();
  text_.clear();
  error_ = "";
  in_body_ = started_ = false;
  keep_alive_ = true;
}

ResponseReader::State ResponseReader::Bad(const char* what) {
  error_ = what;
  return State::kBad;
}

ResponseReader::State ResponseReader::Feed(std::string_view bytes, int64_t now) {
  started_ |= !bytes.empty();
  while (!in_body_) {
    const State state = Head(bytes);
    if (state != State::kDone) return state;
  }
  return Body(bytes, now);
}

// kDone when a head was taken off `bytes`; of an informational one nothing is kept.
ResponseReader::State ResponseReader::Head(std::string_view& bytes) {
  // The head's end may be split between two reads.
  const size_t before = kept_.size();
  size_t end = 0;
  if (before == 0) {
    end = bytes.find("\r\n\r\n");
  } else {
    kept_.append(bytes.substr(0, kMaxHead + 1));
    end = kept_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
  }
  if (end == kNone) {
    if (before == 0) kept_.assign(bytes.substr(0, kMaxHead + 1));
    return kept_.size() > kMaxHead ? Bad("head above 64 KiB") : State::kMore;
  }
  const size_t size = end + 4;
  if (size > kMaxHead) return Bad("head above 64 KiB");
  if (!ParseHead(before == 0 ? bytes.substr(0, size) : std::string_view(kept_).substr(0, size))) {
    return State::kBad;
  }
  bytes.remove_prefix(size - before);
  kept_.clear();
  if (answer_.status < 200) {
    framing_ = {};
    return answer_.status == 101 ? Bad("101 was not asked for") : State::kDone;
  }
  if (want_.no_body || answer_.status == 204 || answer_.status == 304) {
    framing_ = {};
  } else if (framing_.kind == http::Framing::Kind::kNone) {
    framing_.kind = http::Framing::Kind::kUntilClose;
    keep_alive_ = false;
  }
  decoder_ = http::BodyDecoder(framing_);
  in_body_ = true;
  return State::kDone;
}

bool ResponseReader::ParseHead(std::string_view head) {
  // "HTTP/1.1 200 OK"
  if (head.size() < 13 || !head.starts_with("HTTP/1.") || head[8] != ' ') {
    return Bad("not an HTTP/1 answer"), false;
  }
  int status = 0;
  const auto [end, ec] = std::from_chars(head.data() + 9, head.data() + 12, status);
  if (ec != std::errc{} || end != head.data() + 12 || status < 100 || status > 599) {
    return Bad("bad status line"), false;
  }
  answer_.status = status;
  keep_alive_ = head[7] != '0';
  head.remove_prefix(head.find("\r\n") + 2);
  while (!head.starts_with("\r\n")) {
    const size_t at = head.find("\r\n");
    if (!HeadLine(head.substr(0, at))) return false;
    head.remove_prefix(at + 2);
  }
  return true;
}

bool ResponseReader::HeadLine(std::string_view line) {
  using Kind = http::Framing::Kind;
  const size_t colon = line.find(':');
  if (colon == kNone || colon == 0) return Bad("header line without a name"), false;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trim(line.substr(colon + 1));
  if (name.size() == 14 && EqualsIgnoreCase(name, "Content-Length")) {
    uint64_t length = 0;
    const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), length);
    if (ec != std::errc{} || end != value.data() + value.size() ||
        (framing_.kind == Kind::kLength && framing_.length != length)) {
      return Bad("bad Content-Length"), false;
    }
    if (framing_.kind == Kind::kNone) framing_ = {.kind = Kind::kLength, .length = length};
  } else if (name.size() == 17 && EqualsIgnoreCase(name, "Transfer-Encoding")) {
    if (!EqualsIgnoreCase(value, "chunked")) return Bad("unknown Transfer-Encoding"), false;
    framing_ = {.kind = Kind::kChunked};
  } else if (name.size() == 10 && EqualsIgnoreCase(name, "Connection")) {
    if (EqualsIgnoreCase(value, "close")) keep_alive_ = false;
    if (EqualsIgnoreCase(value, "keep-alive")) keep_alive_ = true;
  } else if (name.size() == 12 && EqualsIgnoreCase(name, "Content-Type")) {
    answer_.event_stream = EqualsIgnoreCase(value.substr(0, 17), "text/event-stream");
  }
  return true;
}

ResponseReader::State ResponseReader::Body(std::string_view bytes, int64_t now) {
  while (true) {
    size_t framing = 0;
    std::string_view piece;
    const auto state = decoder_.Next(bytes, &framing, &piece);
    bytes.remove_prefix(framing);
    switch (state) {
      case http::BodyDecoder::State::kPiece:
        answer_.body_bytes += piece.size();
        if (!Piece(piece, now)) return State::kBad;
        bytes.remove_prefix(piece.size());
        break;
      case http::BodyDecoder::State::kMore:
        return State::kMore;
      case http::BodyDecoder::State::kEnd:
        return bytes.empty() ? End() : Bad("bytes behind the answer");
      case http::BodyDecoder::State::kBad:
        return Bad("bad chunked framing");
    }
  }
}

ResponseReader::State ResponseReader::End() {
  if (!answer_.event_stream) WholeBody();
  return State::kDone;
}

ResponseReader::State ResponseReader::FeedEnd() {
  if (!in_body_ || !decoder_.until_close()) return Bad("closed before the answer's end");
  return End();
}

bool ResponseReader::Piece(std::string_view piece, int64_t now) {
  if (!answer_.event_stream) {
    if (want_.usage || want_.text) {
      if (kept_.size() + piece.size() > kMaxKept) return Bad("body above 64 MiB"), false;
      kept_.append(piece);
    }
    return true;
  }
  while (!piece.empty()) {
    const size_t end = piece.find('\n');
    if (end == kNone || !kept_.empty()) {
      if (kept_.size() + std::min(end, piece.size()) > kMaxLine) {
        return Bad("event above 1 MiB"), false;
      }
      kept_.append(piece.substr(0, end));
    }
    if (end == kNone) return true;
    if (!Line(kept_.empty() ? piece.substr(0, end) : std::string_view(kept_), now)) return false;
    kept_.clear();
    piece.remove_prefix(end + 1);
  }
  return true;
}

bool ResponseReader::Line(std::string_view line, int64_t now) {
  if (!line.starts_with("data:")) return true;
  line.remove_prefix(5);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (line == "[DONE]") {
    answer_.done_seen = true;
  } else {
    Event(line, now);
  }
  return true;
}

void ResponseReader::Event(std::string_view data, int64_t now) {
  ++answer_.events;
  const std::string_view content = ContentOf(data);
  if (!content.empty() || HasOtherToken(data)) Token(now);
  if (want_.text && text_.size() + content.size() <= kMaxKept) text_.append(content);
  const std::string_view usage = Behind(data, "\"usage\"");
  if (usage.starts_with('{')) Usage(usage);
  // OpenAI's form of a failure in a stream that has begun.
  if (data.starts_with("{\"error\"") || data.starts_with("{ \"error\"")) answer_.error_seen = true;
}

void ResponseReader::Token(int64_t now) {
  if (answer_.token_events++ == 0) {
    answer_.first_token = now;
  } else {
    for (Histogram* gaps : want_.gaps) {
      if (gaps != nullptr) gaps->Record(now - answer_.last_token);
    }
  }
  answer_.last_token = now;
}

void ResponseReader::Usage(std::string_view json) {
  bool prompt = false, completion = false, cached = false;
  const uint64_t in = IntegerBehind(json, "\"prompt_tokens\"", &prompt);
  const uint64_t out = IntegerBehind(json, "\"completion_tokens\"", &completion);
  const uint64_t held = IntegerBehind(json, "\"cached_tokens\"", &cached);
  if (!prompt && !completion) return;
  answer_.has_usage = true;
  answer_.prompt_tokens = in;
  answer_.completion_tokens = out;
  if (cached) answer_.cached_tokens = held;
}

void ResponseReader::WholeBody() {
  if (kept_.empty() || answer_.status != 200) return;
  const size_t at = kept_.rfind("\"usage\"");
  if (want_.usage && at != kNone) Usage(std::string_view(kept_).substr(at));
  if (want_.text) text_ = ContentOf(kept_);
}

}  // namespace llmd::bench
