#include "text/template/expr_parser.h"

#include "text/template/strings.h"

namespace llmd::text::tmpl {

ExprPtr ExprParser::New(ExprKind kind) const {
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->at = s_.Peek().at;
  return e;
}

ExprPtr ExprParser::Parse() {
  const TokenStream::Depth depth(s_);
  if (s_.failed()) return New(ExprKind::kLiteral);
  ExprPtr value = ParseOr();
  for (int links = 0; s_.IsName("if"); ++links) {
    if (links > s_.max_depth()) s_.Fail("too long a chain of conditions");
    ExprPtr e = New(ExprKind::kCondition);
    s_.Take();
    e->args.push_back(std::move(value));
    e->args.push_back(ParseOr());
    e->args.push_back(s_.TakeName("else") ? Parse() : nullptr);
    value = std::move(e);
  }
  return value;
}

ExprPtr ExprParser::ParseWithoutIf() {
  const TokenStream::Depth depth(s_);
  ExprPtr first = s_.failed() ? New(ExprKind::kLiteral) : ParseOr();
  if (!s_.IsOperator(",")) return first;
  ExprPtr tuple = New(ExprKind::kTuple);
  tuple->args.push_back(std::move(first));
  while (s_.TakeOperator(",")) tuple->args.push_back(ParseOr());
  return tuple;
}

ExprPtr ExprParser::ParseTuple() {
  ExprPtr first = Parse();
  if (!s_.IsOperator(",")) return first;
  ExprPtr tuple = New(ExprKind::kTuple);
  tuple->args.push_back(std::move(first));
  while (s_.TakeOperator(",")) {
    if (s_.IsOperator(")") || s_.Is(TokenKind::kBlockEnd) || s_.Is(TokenKind::kVariableEnd)) break;
    tuple->args.push_back(Parse());
  }
  return tuple;
}

ExprPtr ExprParser::Chain(ExprKind kind, std::string_view word, ExprPtr (ExprParser::*next)()) {
  ExprPtr first = (this->*next)();
  const auto more = [&] {
    return kind == ExprKind::kConcat ? s_.TakeOperator(word) : s_.TakeName(word);
  };
  if (!(kind == ExprKind::kConcat ? s_.IsOperator(word) : s_.IsName(word))) return first;
  ExprPtr e = New(kind);
  e->args.push_back(std::move(first));
  while (more()) e->args.push_back((this->*next)());
  return e;
}

ExprPtr ExprParser::ArithmeticChain(std::initializer_list<std::string_view> ops,
                                    ExprPtr (ExprParser::*next)()) {
  ExprPtr first = (this->*next)();
  const auto matches = [&] {
    for (const std::string_view op : ops) {
      if (s_.IsOperator(op)) return true;
    }
    return false;
  };
  if (!matches()) return first;
  ExprPtr e = New(ExprKind::kArithmetic);
  e->args.push_back(std::move(first));
  while (matches()) {
    e->ops.push_back(s_.Take().text);
    e->args.push_back((this->*next)());
  }
  return e;
}

ExprPtr ExprParser::ParseOr() {
  return Chain(ExprKind::kOr, "or", &ExprParser::ParseAnd);
}
ExprPtr ExprParser::ParseAnd() {
  return Chain(ExprKind::kAnd, "and", &ExprParser::ParseNot);
}

ExprPtr ExprParser::ParseNot() {
  if (!s_.IsName("not")) return ParseCompare();
  const TokenStream::Depth depth(s_);
  ExprPtr e = New(ExprKind::kNot);
  s_.Take();
  e->args.push_back(s_.failed() ? New(ExprKind::kLiteral) : ParseNot());
  return e;
}

bool ExprParser::CompareOperator(std::string& op) {
  for (const std::string_view candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
    if (s_.IsOperator(candidate)) {
      op = s_.Take().text;
      return true;
    }
  }
  if (s_.IsName("in")) {
    op = s_.Take().text;
    return true;
  }
  if (!s_.IsName("not") || !s_.IsName("in", 1)) return false;
  s_.Take();
  s_.Take();
  op = "not in";
  return true;
}

ExprPtr ExprParser::ParseCompare() {
  ExprPtr first = ParseSum();
  std::string op;
  const Position at = s_.Peek().at;
  if (!CompareOperator(op)) return first;
  ExprPtr e = New(ExprKind::kCompare);
  e->at = at;
  e->args.push_back(std::move(first));
  do {
    e->ops.push_back(op);
    e->args.push_back(ParseSum());
  } while (CompareOperator(op));
  return e;
}

ExprPtr ExprParser::ParseSum() {
  return ArithmeticChain({"+", "-"}, &ExprParser::ParseConcat);
}
ExprPtr ExprParser::ParseConcat() {
  return Chain(ExprKind::kConcat, "~", &ExprParser::ParseProduct);
}
ExprPtr ExprParser::ParseProduct() {
  return ArithmeticChain({"*", "/", "//", "%"}, &ExprParser::ParsePower);
}
ExprPtr ExprParser::ParsePower() {
  return ArithmeticChain({"**"}, &ExprParser::ParseUnary);
}
ExprPtr ExprParser::ParseUnary() {
  return ParseFilters(ParseSigned());
}

ExprPtr ExprParser::ParseSigned() {
  if (!s_.IsOperator("-") && !s_.IsOperator("+")) return ParsePostfix(ParsePrimary());
  const TokenStream::Depth depth(s_);
  ExprPtr e = New(s_.IsOperator("-") ? ExprKind::kNegate : ExprKind::kPlus);
  s_.Take();
  e->args.push_back(s_.failed() ? New(ExprKind::kLiteral) : ParseSigned());
  return e;
}

ExprPtr ExprParser::ParsePrimary() {
  switch (s_.Peek().kind) {
    case TokenKind::kName:
      return ParseNameOrConstant();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    case TokenKind::kString: {
      ExprPtr e = New(ExprKind::kLiteral);
      std::string text;
      while (s_.Is(TokenKind::kString)) text += s_.Take().text;
      e->literal = Value::Str(std::move(text));
      return e;
    }
    default:
      break;
  }
  if (s_.IsOperator("(")) return ParseParenthesised();
  if (s_.IsOperator("[")) return ParseList();
  if (s_.IsOperator("{")) return ParseDict();
  ExprPtr e = New(ExprKind::kLiteral);
  s_.Fail("expected an expression");
  return e;
}

ExprPtr ExprParser::ParseNameOrConstant() {
  ExprPtr e = New(ExprKind::kLiteral);
  const std::string name = s_.Take().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    e->literal = Value(name == "true" || name == "True");
  } else if (name == "none" || name == "None") {
    e->literal = Value(None{});
  } else {
    e->kind = ExprKind::kName;
    e->name = name;
  }
  return e;
}

ExprPtr ExprParser::ParseNumber() {
  ExprPtr e = New(ExprKind::kLiteral);
  const bool real = s_.Is(TokenKind::kFloat);
  const std::string& text = s_.Peek().text;
  const auto number = real ? ParseFloat(text) : std::nullopt;
  const auto integer = real ? std::nullopt : ParseInteger(text, 0);
  if (!number && !integer) {
    s_.Fail("a number out of range");
    return e;
  }
  e->literal = real ? Value(*number) : Value::Int(*integer);
  s_.Take();
  return e;
}

ExprPtr ExprParser::ParseParenthesised() {
  ExprPtr empty = New(ExprKind::kTuple);
  s_.Take();
  if (s_.TakeOperator(")")) return empty;
  ExprPtr inner = ParseTuple();
  s_.ExpectOperator(")");
  return inner;
}

ExprPtr ExprParser::ParseList() {
  ExprPtr e = New(ExprKind::kList);
  s_.Take();
  while (!s_.failed() && !s_.IsOperator("]")) {
    e->args.push_back(Parse());
    if (!s_.TakeOperator(",")) break;
  }
  s_.ExpectOperator("]");
  return e;
}

ExprPtr ExprParser::ParseDict() {
  ExprPtr e = New(ExprKind::kDict);
  s_.Take();
  while (!s_.failed() && !s_.IsOperator("}")) {
    e->args.push_back(Parse());
    s_.ExpectOperator(":");
    e->args.push_back(Parse());
    if (!s_.TakeOperator(",")) break;
  }
  s_.ExpectOperator("}");
  return e;
}

ExprPtr ExprParser::ParsePostfix(ExprPtr base) {
  for (int links = 0; !s_.failed(); ++links) {
    if (links > s_.max_depth()) s_.Fail("too long a chain of attributes and calls");
    if (s_.IsOperator(".")) {
      s_.Take();
      ExprPtr e = New(s_.Is(TokenKind::kInteger) ? ExprKind::kSubscript : ExprKind::kAttribute);
      e->args.push_back(std::move(base));
      if (e->kind == ExprKind::kSubscript) {
        e->args.push_back(ParseNumber());
      } else {
        e->name = s_.ExpectName("an attribute's name");
      }
      base = std::move(e);
    } else if (s_.IsOperator("[")) {
      base = ParseSubscript(std::move(base));
    } else if (s_.IsOperator("(")) {
      ExprPtr e = New(ExprKind::kCall);
      e->args.push_back(std::move(base));
      ParseArguments(*e);
      base = std::move(e);
    } else {
      break;
    }
  }
  return base;
}

ExprPtr ExprParser::ParseSubscript(ExprPtr base) {
  ExprPtr e = New(ExprKind::kSubscript);
  s_.Take();
  e->args.push_back(std::move(base));
  const auto part_ends = [&] { return s_.IsOperator(":") || s_.IsOperator("]"); };
  e->args.push_back(part_ends() ? nullptr : ParseTuple());
  if (s_.IsOperator(":")) {
    e->kind = ExprKind::kSlice;
    while (e->args.size() < 4 && s_.TakeOperator(":"))
      e->args.push_back(part_ends() ? nullptr : Parse());
    while (e->args.size() < 4) e->args.push_back(nullptr);
  } else if (!e->args[1]) {
    s_.Fail("expected an index");
  }
  s_.ExpectOperator("]");
  return e;
}

void ExprParser::ParseArguments(Expr& call) {
  s_.ExpectOperator("(");
  while (!s_.failed() && !s_.IsOperator(")")) {
    if (s_.IsOperator("*") || s_.IsOperator("**")) {
      ExprPtr splat = New(s_.IsOperator("*") ? ExprKind::kSplat : ExprKind::kMapSplat);
      s_.Take();
      splat->args.push_back(Parse());
      call.args.push_back(std::move(splat));
    } else if (s_.Is(TokenKind::kName) && s_.IsOperator("=", 1)) {
      std::string name = s_.Take().text;
      s_.Take();
      call.named.emplace_back(std::move(name), Parse());
    } else if (!call.named.empty()) {
      s_.Fail("a positional argument after a named one");
    } else {
      call.args.push_back(Parse());
    }
    if (!s_.TakeOperator(",")) break;
  }
  s_.ExpectOperator(")");
}

ExprPtr ExprParser::ParseFilters(ExprPtr base) {
  for (int links = 0; !s_.failed(); ++links) {
    if (links > s_.max_depth()) s_.Fail("too long a chain of filters");
    if (s_.TakeOperator("|")) {
      base = ParseOneFilter(std::move(base));
    } else if (s_.TakeName("is")) {
      base = ParseTest(std::move(base));
    } else if (s_.IsOperator("(")) {
      ExprPtr e = New(ExprKind::kCall);
      e->args.push_back(std::move(base));
      ParseArguments(*e);
      base = std::move(e);
    } else {
      break;
    }
  }
  return base;
}

ExprPtr ExprParser::ParseOneFilter(ExprPtr base) {
  ExprPtr e = New(ExprKind::kFilter);
  e->name = s_.ExpectName("a filter's name");
  while (s_.TakeOperator(".")) e->name += "." + s_.ExpectName("a filter's name");
  e->args.push_back(std::move(base));
  if (s_.IsOperator("(")) ParseArguments(*e);
  return e;
}

ExprPtr ExprParser::ParseFilterChain() {
  ExprPtr chain = ParseOneFilter(nullptr);
  return ParseFilters(std::move(chain));
}

ExprPtr ExprParser::ParseTest(ExprPtr base) {
  const bool negated = s_.TakeName("not");
  ExprPtr e = New(ExprKind::kTest);
  e->name = s_.ExpectName("a test's name");
  e->args.push_back(std::move(base));
  const auto keyword = [&] {
    for (const std::string_view word : {"else", "or", "and", "is", "if", "in", "not"}) {
      if (s_.IsName(word)) return true;
    }
    return false;
  };
  const TokenKind next = s_.Peek().kind;
  const bool value_follows =
      ((next == TokenKind::kName && !keyword()) || next == TokenKind::kString ||
       next == TokenKind::kInteger || next == TokenKind::kFloat || s_.IsOperator("[") ||
       s_.IsOperator("{"));
  if (s_.IsOperator("(")) {
    ParseArguments(*e);
  } else if (value_follows) {
    e->args.push_back(ParsePostfix(ParsePrimary()));
  }
  if (!negated) return e;
  ExprPtr inverse = New(ExprKind::kNot);
  inverse->args.push_back(std::move(e));
  return inverse;
}

}  // namespace llmd::text::tmpl
