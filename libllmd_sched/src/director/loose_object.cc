#include "director/loose_object.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr char kNotAscii = '\x01';

struct Encoding {
  size_t width = 1, offset = 0;
  bool big = false;
};

Encoding EncodingOf(std::string_view body) {
  using namespace std::string_view_literals;
  if (body.starts_with("\xEF\xBB\xBF"sv)) return {1, 3};
  if (body.starts_with("\0\0\xFE\xFF"sv)) return {4, 4, true};
  if (body.starts_with("\xFF\xFE\0\0"sv)) return {4, 4};
  if (body.starts_with("\xFE\xFF"sv)) return {2, 2, true};
  if (body.starts_with("\xFF\xFE"sv)) return {2, 2};
  if (body.size() < 4) return {};
  if (body[0] == 0) return body[1] == 0 ? Encoding{4, 0, true} : Encoding{2, 0, true};
  if (body[1] == 0) return body[2] == 0 && body[3] == 0 ? Encoding{4, 0} : Encoding{2, 0};
  return {};
}

// The character whose bytes these are, or a placeholder.
char AsciiOf(std::string_view unit, bool big) {
  const size_t low = big ? unit.size() - 1 : 0;
  for (size_t i = 0; i < unit.size(); ++i) {
    if (i != low && unit[i] != 0) return kNotAscii;
  }
  return static_cast<unsigned char>(unit[low]) < 0x80 ? unit[low] : kNotAscii;
}

// Behind the string whose opening quote stands at `at`; npos when it does not end.
size_t EndOfString(std::string_view text, size_t at) {
  for (++at; at < text.size(); ++at) {
    at = text.find_first_of("\"\\", at);
    if (at == std::string_view::npos) return at;
    if (text[at] == '"') return at + 1;
    ++at;
  }
  return std::string_view::npos;
}

// The comma or bracket that ends the value which begins at or behind `at`; npos when none does.
size_t EndOfValue(std::string_view text, size_t at) {
  size_t depth = 0;
  while ((at = text.find_first_of("\"{}[],", at)) != std::string_view::npos) {
    const char c = text[at];
    if (c == '"') {
      at = EndOfString(text, at);
      if (at == std::string_view::npos) return at;
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}' || c == ']')) return at;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    ++at;
  }
  return at;
}

}  // namespace

AsciiView::AsciiView(std::string_view body) : text(body) {
  const Encoding encoding = EncodingOf(body);
  width = encoding.width;
  offset = encoding.offset;
  text.remove_prefix(offset);
  if (width == 1) return;
  for (size_t at = offset; at + width <= body.size(); at += width)
    projected_ += AsciiOf(body.substr(at, width), encoding.big);
  text = projected_;
}

std::vector<json::ScannedMember> LooseMembers(std::string_view text) {
  constexpr size_t kNone = std::string_view::npos;
  std::vector<json::ScannedMember> members;
  size_t at = text.find_first_not_of(kBlanks);
  if (at == kNone || text[at] != '{') return {};
  do {
    json::ScannedMember m;
    m.key.begin = text.find_first_not_of(kBlanks, at + 1);
    if (m.key.begin == kNone || text[m.key.begin] != '"') break;
    m.key.end = EndOfString(text, m.key.begin);
    if (m.key.end == kNone) return {};
    m.value.begin = m.key.end;
    at = EndOfValue(text, m.value.begin);
    if (at == kNone) return {};
    m.value.end = text.find_last_not_of(kBlanks, at - 1) + 1;
    members.push_back(m);
  } while (text[at] == ',');
  return members;
}

}  // namespace llmd::sched
