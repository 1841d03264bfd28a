// The parser's cursor. After the first error it stands at the end token, so that every loop of the
// parser ends.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/lexer.h"

namespace llmd::text::tmpl {

class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, int max_depth)
      : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token Take() {
    Token token = Peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool Is(TokenKind kind, size_t ahead = 0) const { return Peek(ahead).kind == kind; }
  bool IsOperator(std::string_view op, size_t ahead = 0) const {
    return Is(TokenKind::kOperator, ahead) && Peek(ahead).text == op;
  }
  bool IsName(std::string_view name, size_t ahead = 0) const {
    return Is(TokenKind::kName, ahead) && Peek(ahead).text == name;
  }
  bool TakeOperator(std::string_view op) { return IsOperator(op) && (Take(), true); }
  bool TakeName(std::string_view name) { return IsName(name) && (Take(), true); }
  void ExpectOperator(std::string_view op) {
    if (!TakeOperator(op)) Fail("expected '" + std::string(op) + "'");
  }
  void Expect(TokenKind kind, std::string_view what) {
    if (Is(kind)) {
      Take();
    } else {
      Fail("expected " + std::string(what));
    }
  }
  std::string ExpectName(std::string_view what) {
    if (Is(TokenKind::kName)) return Take().text;
    Fail("expected " + std::string(what));
    return {};
  }
  void Fail(std::string_view message) {
    if (status_.ok()) {
      const Token& token = Peek();
      const std::string found =
          token.text.empty() ? "" : ", found '" + token.text.substr(0, 40) + "'";
      status_ = TemplateError(token.at, std::string(message) + found);
    }
    at_ = tokens_.size() - 1;
  }
  bool failed() const { return !status_.ok(); }
  const Status& status() const { return status_; }

  // Counts nesting while in scope.
  class Depth {
   public:
    explicit Depth(TokenStream& stream) : stream_(stream) {
      if (++stream_.depth_ > stream_.max_depth_)
        stream_.Fail("nested more than " + std::to_string(stream_.max_depth_) + " deep");
    }
    ~Depth() { --stream_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    TokenStream& stream_;
  };
  int max_depth() const { return max_depth_; }

 private:
  std::vector<Token> tokens_;
  const int max_depth_;
  size_t at_ = 0;
  int depth_ = 0;
  Status status_;
};

}  // namespace llmd::text::tmpl
