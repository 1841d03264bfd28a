// Cuts a template into text and tag tokens, with Jinja's white-space rules (trim_blocks,
// lstrip_blocks, '-' and '+').
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::text::tmpl {

struct Position {
  int line = 1, column = 1;
};

enum class TokenKind {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // decoded for strings, the spelling for the rest
  Position at;
};

// INVALID_ARGUMENT with line and column. The last token is kEnd.
StatusOr<std::vector<Token>> Tokenize(std::string_view source);

Status TemplateError(Position at, std::string_view message);

}  // namespace llmd::text::tmpl
