#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "json_lexer.h"
#include "json_unescape.h"
#include "llmd/json.h"

namespace llmd::json {
namespace {

// A tree is built and freed by recursion, so no caller may ask for more than a thread's stack
// takes.
constexpr size_t kDeepestTree = 1000;
constexpr size_t kFewMembers = 16;

// The decimal exponent of the first digit that counts; tells overflow from underflow.
bool IsHuge(std::string_view number) {
  if (number.front() == '-') number.remove_prefix(1);
  const size_t e = number.find_first_of("eE");
  const std::string_view digits = number.substr(0, e);
  const size_t point = std::min(digits.find('.'), digits.size());
  const size_t first = digits.find_first_of("123456789");
  if (first == std::string_view::npos) return false;
  std::string_view exponent = e == std::string_view::npos ? "0" : number.substr(e + 1);
  if (exponent.front() == '+') exponent.remove_prefix(1);
  int64_t exponent_value = 0;
  const auto [ptr, ec] =
      std::from_chars(exponent.data(), exponent.data() + exponent.size(), exponent_value);
  if (ec != std::errc{}) return exponent.front() != '-';
  return exponent_value + static_cast<int64_t>(point) - static_cast<int64_t>(first) > 0;
}

// False when the number has no finite double.
bool ReadNumber(std::string_view text, bool integral, Value& out) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  if (integral) {
    int64_t i = 0;
    if (std::from_chars(begin, end, i).ec == std::errc{}) {
      out = i;
      return true;
    }
    uint64_t u = 0;
    if (text.front() != '-' && std::from_chars(begin, end, u).ec == std::errc{}) {
      out = u;
      return true;
    }
  }
  double d = 0;
  if (std::from_chars(begin, end, d).ec != std::errc{}) {
    if (IsHuge(text)) return false;
    d = text.front() == '-' ? -0.0 : 0.0;
  }
  out = d;
  return true;
}

bool HasDuplicatesAmongFew(const Object& members) {
  for (size_t i = 1; i < members.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (members[i].first == members[j].first) return true;
    }
  }
  return false;
}

// Keeps the first place and the last value of each key.
void DropDuplicates(Object& members) {
  if (members.size() <= kFewMembers && !HasDuplicatesAmongFew(members)) return;
  std::unordered_map<std::string_view, size_t> places;
  std::vector<size_t> doomed;
  for (size_t i = 0; i < members.size(); ++i) {
    const auto [it, fresh] = places.emplace(members[i].first, i);
    if (fresh) continue;
    members[it->second].second = std::move(members[i].second);
    doomed.push_back(i);
  }
  if (doomed.empty()) return;
  Object kept;
  kept.reserve(members.size() - doomed.size());
  size_t next = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    if (next < doomed.size() && doomed[next] == i) {
      ++next;
    } else {
      kept.push_back(std::move(members[i]));
    }
  }
  members = std::move(kept);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text) {}

  StatusOr<Value> Run(size_t max_depth) {
    Value value;
    lexer_.SkipBlanks();
    if (!Read(value, max_depth)) return lexer_.Error();
    lexer_.SkipBlanks();
    if (lexer_.AtEnd()) return value;
    lexer_.Fail("text behind the value");
    return lexer_.Error();
  }

 private:
  bool Read(Value& out, size_t depth_left) {
    const size_t begin = lexer_.offset();
    const char c = lexer_.Peek();
    if (c == '{' || c == '[') {
      if (depth_left == 0) return lexer_.Fail("nested too deeply");
      return c == '{' ? ReadObject(out, depth_left - 1) : ReadArray(out, depth_left - 1);
    }
    bool flag = false;
    if (c == '"') {
      if (!lexer_.SkipString(&flag)) return false;
      out = DecodeString(lexer_.From(begin), flag);
      return true;
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
      if (!lexer_.SkipNumber(&flag)) return false;
      return ReadNumber(lexer_.From(begin), flag, out) || lexer_.Fail("number out of range");
    }
    return ReadLiteral(c, out);
  }

  bool ReadLiteral(char c, Value& out) {
    if (c == 'n') return lexer_.SkipLiteral("null");
    if (c == 't' || c == 'f') {
      out = c == 't';
      return lexer_.SkipLiteral(c == 't' ? "true" : "false");
    }
    return lexer_.Fail(lexer_.AtEnd() ? "unexpected end" : "expected a value");
  }

  bool ReadArray(Value& out, size_t depth_left) {
    Array items;
    lexer_.Take('[');
    lexer_.SkipBlanks();
    bool more = !lexer_.Take(']');
    while (more) {
      if (!Read(items.emplace_back(), depth_left)) return false;
      lexer_.SkipBlanks();
      more = !lexer_.Take(']');
      if (more && !lexer_.Take(',')) return lexer_.Fail("expected ',' or ']'");
      if (more) lexer_.SkipBlanks();
    }
    out = std::move(items);
    return true;
  }

  bool ReadObject(Value& out, size_t depth_left) {
    Object members;
    lexer_.Take('{');
    lexer_.SkipBlanks();
    bool more = !lexer_.Take('}');
    while (more) {
      if (!ReadMember(members.emplace_back(), depth_left)) return false;
      lexer_.SkipBlanks();
      more = !lexer_.Take('}');
      if (more && !lexer_.Take(',')) return lexer_.Fail("expected ',' or '}'");
      if (more) lexer_.SkipBlanks();
    }
    DropDuplicates(members);
    out = std::move(members);
    return true;
  }

  bool ReadMember(Member& member, size_t depth_left) {
    const size_t begin = lexer_.offset();
    bool escaped = false;
    if (lexer_.Peek() != '"') return lexer_.Fail("expected a key in quotes");
    if (!lexer_.SkipString(&escaped)) return false;
    member.first = DecodeString(lexer_.From(begin), escaped);
    lexer_.SkipBlanks();
    if (!lexer_.Take(':')) return lexer_.Fail("expected ':' after a key");
    lexer_.SkipBlanks();
    return Read(member.second, depth_left);
  }

  Lexer lexer_;
};

}  // namespace

StatusOr<Value> Parse(std::string_view text, ParseLimits limits) {
  return Parser(text).Run(std::min(limits.max_depth, kDeepestTree));
}

}  // namespace llmd::json
