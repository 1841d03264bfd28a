#include "text/template/lexer.h"

#include <algorithm>
#include <array>

#include "text/unicode.h"
#include "utf8.h"

namespace llmd::text::tmpl {
namespace {

bool IsSpace(char c) {
  return c == ' ' || (c >= 9 && c <= 13);
}
bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}

// As Jinja: every line break becomes \n, one at the very end is dropped.
std::string NormaliseNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormaliseNewlines(source)) {}

  StatusOr<std::vector<Token>> Run() {
    while (status_.ok() && at_ < source_.size()) LexOutside();
    if (!status_.ok()) return status_;
    Emit(TokenKind::kEnd, "", source_.size());
    return std::move(tokens_);
  }

 private:
  bool Ahead(std::string_view s) const {
    return std::string_view(source_).substr(at_, s.size()) == s;
  }
  char CharAt(size_t at) const { return at < source_.size() ? source_[at] : '\0'; }
  void SkipSpaces() {
    while (at_ < source_.size() && IsSpace(source_[at_])) ++at_;
  }
  void Fail(size_t at, std::string_view message) {
    if (status_.ok()) status_ = TemplateError(PositionOf(at), message);
    at_ = source_.size();
  }
  // Offsets come in ascending order, so that lines are counted once.
  Position PositionOf(size_t at) {
    for (; counted_ < at; ++counted_) {
      if (source_[counted_] != '\n') continue;
      ++line_;
      line_start_ = counted_ + 1;
    }
    return {line_, static_cast<int>(at - std::min(at, line_start_)) + 1};
  }
  void Emit(TokenKind kind, std::string text, size_t at) {
    tokens_.push_back({kind, std::move(text), PositionOf(at)});
  }

  size_t FindOpening() const {
    size_t open = source_.find('{', at_);
    while (open != source_.npos) {
      const char next = CharAt(open + 1);
      if (next == '{' || next == '%' || next == '#') break;
      open = source_.find('{', open + 1);
    }
    return open;
  }
  void LexOutside() {
    const size_t start = at_, open = FindOpening();
    if (open == source_.npos) {
      Emit(TokenKind::kText, source_.substr(start), start);
      at_ = source_.size();
      return;
    }
    const char kind = source_[open + 1], sign = CharAt(open + 2);
    EmitTextBefore(start, open, kind, sign);
    at_ = open + (sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#') return SkipComment(open);
    if (kind == '%' && LexRaw(open)) return;
    Emit(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "", open);
    LexTag(kind == '%');
  }
  void EmitTextBefore(size_t start, size_t open, char kind, char sign) {
    std::string_view text = std::string_view(source_).substr(start, open - start);
    if (sign == '-') {
      while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
    } else if (sign != '+' && kind != '{') {
      const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      const bool starts_line = line > 0 || start == 0 || source_[start - 1] == '\n';
      if (starts_line && std::all_of(text.begin() + line, text.end(), IsSpace))
        text = text.substr(0, line);
    }
    if (!text.empty()) Emit(TokenKind::kText, std::string(text), start);
  }
  // After "-%}" all white space goes, after "%}" one line break.
  void AfterBlock(char sign) {
    if (sign == '-') SkipSpaces();
    if (sign != '-' && sign != '+' && CharAt(at_) == '\n') ++at_;
  }
  void SkipComment(size_t open) {
    const size_t end = source_.find("#}", at_);
    if (end == source_.npos) return Fail(open, "the comment has no end");
    at_ = end + 2;
    AfterBlock(end > open + 2 ? source_[end - 1] : ' ');
  }
  // "{% raw %}": the text up to "{% endraw %}" as it stands.
  bool LexRaw(size_t open) {
    const size_t begin = at_;
    char sign = ' ';
    if (!TakeWordBlock("raw", sign)) {
      at_ = begin;
      return false;
    }
    AfterBlock(sign);
    const size_t body = at_;
    for (size_t tag = source_.find("{%", at_); tag != source_.npos;
         tag = source_.find("{%", tag + 2)) {
      const char before = CharAt(tag + 2);
      at_ = tag + (before == '-' || before == '+' ? 3 : 2);
      if (!TakeWordBlock("endraw", sign)) continue;
      EmitTextBefore(body, tag, '%', before);
      AfterBlock(sign);
      return true;
    }
    Fail(open, "raw has no endraw");
    return true;
  }
  bool TakeWordBlock(std::string_view word, char& sign) {
    SkipSpaces();
    if (!Ahead(word)) return false;
    at_ += word.size();
    SkipSpaces();
    sign = CharAt(at_) == '-' || CharAt(at_) == '+' ? source_[at_++] : ' ';
    if (!Ahead("%}")) return false;
    at_ += 2;
    return true;
  }

  void LexTag(bool block) {
    const size_t open = at_;
    int depth = 0;  // of brackets: "}}" inside a dict literal does not end the tag
    while (at_ < source_.size()) {
      SkipSpaces();
      if (depth == 0 && TakeTagEnd(block)) return;
      if (at_ >= source_.size()) break;
      const char c = source_[at_];
      if (c == '(' || c == '[' || c == '{') ++depth;
      if ((c == ')' || c == ']' || c == '}') && depth > 0) --depth;
      LexToken(c);
    }
    if (status_.ok()) Fail(open, block ? "the tag has no %}" : "the expression has no }}");
  }
  bool TakeTagEnd(bool block) {
    const size_t start = at_;
    char sign = ' ';
    if (CharAt(at_) == '-' || (block && CharAt(at_) == '+')) sign = source_[at_++];
    if (!Ahead(block ? "%}" : "}}")) {
      at_ = start;
      return false;
    }
    Emit(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "", start);
    at_ += 2;
    if (block) AfterBlock(sign);
    if (!block && sign == '-') SkipSpaces();
    return true;
  }
  void LexToken(char c) {
    if (c == '"' || c == '\'') return LexString(c);
    if (IsDigit(c)) return LexNumber();
    if (IsNameStart(c)) {
      const size_t start = at_;
      while (IsNameStart(CharAt(at_)) || IsDigit(CharAt(at_))) ++at_;
      return Emit(TokenKind::kName, source_.substr(start, at_ - start), start);
    }
    static constexpr std::array<std::string_view, 25> kOperators = {
        "//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ":",  "|",  ",",  "(", ")", "[", "]", "{", "}"};
    for (const std::string_view op : kOperators) {
      if (!Ahead(op)) continue;
      Emit(TokenKind::kOperator, std::string(op), at_);
      at_ += op.size();
      return;
    }
    Fail(at_, std::string("unexpected character '") + c + "'");
  }
  void LexNumber() {
    const size_t start = at_;
    const char letter = static_cast<char>(CharAt(at_ + 1) | 0x20);
    if (CharAt(at_) == '0' && (letter == 'x' || letter == 'o' || letter == 'b')) {
      for (at_ += 2; IsDigit(CharAt(at_)) || IsNameStart(CharAt(at_));) ++at_;
      return Emit(TokenKind::kInteger, source_.substr(start, at_ - start), start);
    }
    const auto digits = [this] {
      while (IsDigit(CharAt(at_)) || (CharAt(at_) == '_' && IsDigit(CharAt(at_ + 1)))) ++at_;
    };
    digits();
    bool real = false;
    if (CharAt(at_) == '.' && IsDigit(CharAt(at_ + 1))) {
      real = true;
      ++at_;
      digits();
    }
    const size_t sign = CharAt(at_ + 1) == '+' || CharAt(at_ + 1) == '-' ? 1 : 0;
    if ((CharAt(at_) == 'e' || CharAt(at_) == 'E') && IsDigit(CharAt(at_ + 1 + sign))) {
      real = true;
      at_ += 1 + sign;
      digits();
    }
    std::string text = source_.substr(start, at_ - start);
    std::erase(text, '_');
    Emit(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(text), start);
  }
  void LexString(char quote) {
    const size_t start = at_++;
    std::string text;
    while (at_ < source_.size() && source_[at_] != quote) {
      if (source_[at_] == '\\' && at_ + 1 < source_.size()) {
        TakeEscape(text);
      } else {
        text += source_[at_++];
      }
    }
    if (at_ >= source_.size()) return Fail(start, "the string has no end");
    ++at_;
    Emit(TokenKind::kString, std::move(text), start);
  }
  void TakeEscape(std::string& text) {
    static constexpr std::string_view kFrom = "\\'\"nrtbfav", kTo = "\\'\"\n\r\t\b\f\a\v";
    const char c = source_[at_ + 1];
    if (const size_t i = kFrom.find(c); i != kFrom.npos) {
      text += kTo[i];
      at_ += 2;
    } else if (c == '\n') {
      at_ += 2;
    } else if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t digits = 0;
      for (++at_; digits < 3 && CharAt(at_) >= '0' && CharAt(at_) <= '7'; ++digits, ++at_)
        code = code * 8 + static_cast<uint32_t>(CharAt(at_) - '0');
      AppendUtf8(text, code);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      TakeHex(text, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else {
      text += '\\', text += c;
      at_ += 2;
    }
  }
  void TakeHex(std::string& text, size_t digits) {
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = CharAt(at_ + 2 + i);
      const char low = static_cast<char>(c | 0x20);
      const int value = IsDigit(c) ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
      if (value < 0) return Fail(at_, "bad escape in a string");
      code = code << 4 | static_cast<uint32_t>(value);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      return Fail(at_, "an escape that is no character");
    AppendUtf8(text, code);
    at_ += 2 + digits;
  }

  const std::string source_;
  size_t at_ = 0, counted_ = 0, line_start_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
  Status status_;
};

}  // namespace

StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(source).Run();
}

Status TemplateError(Position at, std::string_view message) {
  return InvalidArgument("template line " + std::to_string(at.line) + ", column " +
                         std::to_string(at.column) + ": " + std::string(message));
}

}  // namespace llmd::text::tmpl
