#include "llmd/json_scan.h"
#include "json_lexer.h"
#include "json_unescape.h"
#include "llmd/json.h"

namespace llmd::json {
namespace {

// A chat request has about as many; one allocation then does.
constexpr size_t kUsualMembers = 16;

constexpr size_t Inner(size_t depth) {
  return depth == 0 ? 0 : depth - 1;
}

// Walks `text` as one container between `open` and `close`; `element` takes one element.
template <typename Element>
Status ScanContainer(Lexer& lexer, char open, char close, const char* what, Element element) {
  lexer.SkipBlanks();
  if (!lexer.Take(open)) {
    lexer.Fail(what);
    return lexer.Error();
  }
  lexer.SkipBlanks();
  bool more = !lexer.Take(close);
  while (more) {
    if (!element()) return lexer.Error();
    lexer.SkipBlanks();
    more = !lexer.Take(close);
    if (more && !lexer.Take(',')) {
      lexer.Fail(close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
      return lexer.Error();
    }
    lexer.SkipBlanks();
  }
  lexer.SkipBlanks();
  if (lexer.AtEnd()) return OkStatus();
  lexer.Fail("text behind the value");
  return lexer.Error();
}

bool KeyEquals(std::string_view quoted, std::string_view key) {
  const std::string_view raw = quoted.substr(1, quoted.size() - 2);
  // What holds an escape is longer than what it means.
  if (raw.size() <= key.size()) return raw == key && raw.find('\\') == std::string_view::npos;
  if (!key.empty() && raw.front() != key.front() && raw.front() != '\\') return false;
  return raw.find('\\') != std::string_view::npos && DecodeString(quoted, true) == key;
}

}  // namespace

std::string_view ScannedMember::KeyText(std::string_view text) const {
  return text.substr(key.begin + 1, key.size() - 2);
}

StatusOr<std::vector<ScannedMember>> ScanObject(std::string_view text, ParseLimits limits) {
  std::vector<ScannedMember> members;
  LLMD_RETURN_IF_ERROR(ScanObjectInto(text, limits, members));
  return members;
}

Status ScanObjectInto(std::string_view text, ParseLimits limits,
                      std::vector<ScannedMember>& members) {
  Lexer lexer(text, limits.validated);
  members.clear();
  members.reserve(kUsualMembers);
  const auto member = [&] {
    ScannedMember m;
    m.key.begin = lexer.offset();
    bool unused = false;
    if (lexer.Peek() != '"') return lexer.Fail("expected a key in quotes");
    if (!lexer.SkipString(&unused)) return false;
    m.key.end = lexer.offset();
    lexer.SkipBlanks();
    if (!lexer.Take(':')) return lexer.Fail("expected ':' after a key");
    lexer.SkipBlanks();
    m.value.begin = lexer.offset();
    if (!lexer.SkipValue(Inner(limits.max_depth))) return false;
    m.value.end = lexer.offset();
    members.push_back(m);
    return true;
  };
  Status scanned = ScanContainer(lexer, '{', '}', "expected an object", member);
  if (!scanned.ok()) members.clear();
  return scanned;
}

Status VisitArray(std::string_view text, ParseLimits limits,
                  const std::function<Status(std::string_view)>& each) {
  Lexer lexer(text, limits.validated);
  Status visited;
  const auto element = [&] {
    const size_t begin = lexer.offset();
    if (!lexer.SkipValue(Inner(limits.max_depth))) return false;
    visited = each(text.substr(begin, lexer.offset() - begin));
    return visited.ok();
  };
  const Status scanned = ScanContainer(lexer, '[', ']', "expected an array", element);
  return visited.ok() ? scanned : visited;
}

StatusOr<std::vector<Span>> ScanArray(std::string_view text, ParseLimits limits) {
  std::vector<Span> elements;
  LLMD_RETURN_IF_ERROR(VisitArray(text, limits, [&](std::string_view element) {
    const auto begin = static_cast<size_t>(element.data() - text.data());
    elements.push_back({begin, begin + element.size()});
    return OkStatus();
  }));
  return elements;
}

const ScannedMember* FindMember(const std::vector<ScannedMember>& members, std::string_view text,
                                std::string_view key) {
  for (auto it = members.rbegin(); it != members.rend(); ++it) {
    if (KeyEquals(it->key.In(text), key)) return &*it;
  }
  return nullptr;
}

StatusOr<std::string> Unquote(std::string_view quoted) {
  Lexer lexer(quoted);
  bool escaped = false;
  if (!lexer.SkipString(&escaped)) return lexer.Error();
  if (!lexer.AtEnd()) {
    lexer.Fail("text behind the string");
    return lexer.Error();
  }
  return DecodeString(quoted, escaped);
}

}  // namespace llmd::json
