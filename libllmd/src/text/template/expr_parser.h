// Expressions of the template language. Never returns null: after an error it gives an empty
// literal.
#pragma once

#include "text/template/ast.h"
#include "text/template/token_stream.h"

namespace llmd::text::tmpl {

class ExprParser {
 public:
  explicit ExprParser(TokenStream& stream) : s_(stream) {}
  ExprPtr Parse();             // with `a if b else c`
  ExprPtr ParseWithoutIf();    // the iterable of a for, which `if` may follow
  ExprPtr ParseTuple();        // a, b, c
  ExprPtr ParseFilterChain();  // name(args) | name … on a null base, for filter blocks

 private:
  ExprPtr New(ExprKind kind) const;
  ExprPtr Chain(ExprKind kind, std::string_view word, ExprPtr (ExprParser::*next)());
  ExprPtr ArithmeticChain(std::initializer_list<std::string_view> ops,
                          ExprPtr (ExprParser::*next)());
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary();
  ExprPtr ParseSigned();
  ExprPtr ParsePrimary();
  ExprPtr ParseNameOrConstant();
  ExprPtr ParseNumber();
  ExprPtr ParseParenthesised();
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParsePostfix(ExprPtr base);
  ExprPtr ParseFilters(ExprPtr base);
  ExprPtr ParseOneFilter(ExprPtr base);
  ExprPtr ParseTest(ExprPtr base);
  ExprPtr ParseSubscript(ExprPtr base);
  void ParseArguments(Expr& call);
  bool CompareOperator(std::string& op);

  TokenStream& s_;
};

}  // namespace llmd::text::tmpl
