#include "text/template/parser.h"

#include <algorithm>

#include "text/template/expr_parser.h"
#include "text/template/token_stream.h"
#include "text/template/visit.h"

namespace llmd::text::tmpl {
namespace {

class Parser {
 public:
  Parser(std::vector<Token> tokens, int max_depth) : s_(std::move(tokens), max_depth), exprs_(s_) {}

  StatusOr<Body> Run() {
    Body body = ParseBody({});
    if (!s_.failed() && !s_.Is(TokenKind::kEnd)) s_.Fail("a tag that ends nothing");
    if (s_.failed()) return s_.status();
    return body;
  }

 private:
  // Up to a tag whose name is in `ends`, with the cursor on that name.
  Body ParseBody(std::initializer_list<std::string_view> ends) {
    const TokenStream::Depth depth(s_);
    Body body;
    while (!s_.failed() && !s_.Is(TokenKind::kEnd)) {
      if (s_.Is(TokenKind::kText)) {
        NodePtr node = New(NodeKind::kText);
        node->text = s_.Take().text;
        body.push_back(std::move(node));
      } else if (s_.Is(TokenKind::kVariableBegin)) {
        body.push_back(ParseOutput());
      } else {
        s_.Expect(TokenKind::kBlockBegin, "a tag");
        const bool ended = std::any_of(ends.begin(), ends.end(),
                                       [&](std::string_view name) { return s_.IsName(name); });
        if (ended) return body;
        if (NodePtr node = ParseTag()) body.push_back(std::move(node));
      }
    }
    if (ends.size() > 0 && !s_.failed())
      s_.Fail("the template ends before {% " + std::string(*(ends.end() - 1)) + " %}");
    return body;
  }
  NodePtr New(NodeKind kind) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->at = s_.Peek().at;
    return node;
  }
  void EndTag() { s_.Expect(TokenKind::kBlockEnd, "%}"); }
  void End(std::string_view name) {
    if (!s_.TakeName(name)) s_.Fail("expected " + std::string(name));
    EndTag();
  }
  NodePtr ParseOutput() {
    s_.Take();
    NodePtr node = New(NodeKind::kOutput);
    node->expr = exprs_.ParseTuple();
    s_.Expect(TokenKind::kVariableEnd, "}}");
    return node;
  }
  NodePtr ParseTag() {
    if (s_.IsName("for")) return ParseFor();
    if (s_.IsName("if")) return ParseIf();
    if (s_.IsName("set")) return ParseSet();
    if (s_.IsName("macro")) return ParseMacro();
    if (s_.IsName("filter")) return ParseFilterBlock();
    if (s_.IsName("generation")) return ParseGeneration();
    if (s_.IsName("break") || s_.IsName("continue")) return ParseJump();
    if (s_.IsName("call")) return ParseCallBlock();
    if (s_.IsName("with")) return ParseWith();
    s_.Fail(
        "unknown tag; known: for, if, set, macro, call, with, filter, generation, break, continue, "
        "raw");
    return nullptr;
  }
  NodePtr ParseFor() {
    NodePtr node = New(NodeKind::kFor);
    s_.Take();
    node->targets = ParseTargets();
    if (!s_.TakeName("in")) s_.Fail("expected 'in'");
    node->expr = exprs_.ParseWithoutIf();
    if (s_.TakeName("if")) node->condition = exprs_.Parse();
    if (s_.IsName("recursive")) s_.Fail("recursive loops are not supported");
    EndTag();
    ++loops_;
    node->body = ParseBody({"else", "endfor"});
    --loops_;
    if (s_.TakeName("else")) {
      EndTag();
      node->otherwise = ParseBody({"endfor"});
    }
    End("endfor");
    return node;
  }
  std::vector<std::string> ParseTargets() {
    std::vector<std::string> names;
    const bool bracketed = s_.TakeOperator("(");
    do {
      if (s_.IsOperator(")")) break;
      names.push_back(s_.ExpectName("a variable's name"));
    } while (s_.TakeOperator(","));
    if (bracketed) s_.ExpectOperator(")");
    return names;
  }
  NodePtr ParseIf() {
    NodePtr node = New(NodeKind::kIf);
    s_.Take();
    for (bool more = true; more && !s_.failed();) {
      Branch branch;
      branch.condition = exprs_.ParseTuple();
      EndTag();
      branch.body = ParseBody({"elif", "else", "endif"});
      node->branches.push_back(std::move(branch));
      more = s_.TakeName("elif");
    }
    if (s_.TakeName("else")) {
      EndTag();
      node->branches.push_back({nullptr, ParseBody({"endif"})});
    }
    End("endif");
    return node;
  }
  NodePtr ParseSet() {
    NodePtr node = New(NodeKind::kSet);
    s_.Take();
    node->targets = ParseTargets();
    if (node->targets.size() == 1 && s_.TakeOperator("."))
      node->text = s_.ExpectName("an attribute's name");
    if (s_.TakeOperator("=")) {
      node->expr = exprs_.ParseTuple();
      EndTag();
      return node;
    }
    node->kind = NodeKind::kSetBlock;
    if (node->targets.size() > 1) s_.Fail("a set block takes one name");
    if (s_.TakeOperator("|")) node->expr = exprs_.ParseFilterChain();
    EndTag();
    node->body = ParseBody({"endset"});
    End("endset");
    return node;
  }
  NodePtr ParseMacro() {
    NodePtr node = New(NodeKind::kMacro);
    s_.Take();
    node->text = s_.ExpectName("a macro's name");
    if (!s_.IsOperator("(")) s_.ExpectOperator("(");
    ParseParameters(*node);
    EndTag();
    node->body = ParseBodyOutsideLoops("endmacro");
    s_.TakeName("endmacro");
    if (s_.Is(TokenKind::kName)) s_.Take();
    EndTag();
    ForEachExpr(node->body, [&](const Expr& e) {
      if (e.kind != ExprKind::kName) return;
      node->takes_varargs = node->takes_varargs || e.name == "varargs";
      node->takes_kwargs = node->takes_kwargs || e.name == "kwargs";
      node->takes_caller = node->takes_caller || e.name == "caller";
    });
    return node;
  }
  // "(a, b=1)" when there is one.
  void ParseParameters(Node& node) {
    if (!s_.TakeOperator("(")) return;
    while (!s_.failed() && !s_.IsOperator(")")) {
      Parameter parameter;
      parameter.name = s_.ExpectName("a parameter's name");
      if (s_.TakeOperator("=")) parameter.fallback = exprs_.Parse();
      node.parameters.push_back(std::move(parameter));
      if (!s_.TakeOperator(",")) break;
    }
    s_.ExpectOperator(")");
  }
  Body ParseBodyOutsideLoops(std::string_view end) {
    const int outer_loops = std::exchange(loops_, 0);
    Body body = ParseBody({end});
    loops_ = outer_loops;
    return body;
  }
  NodePtr ParseCallBlock() {
    NodePtr node = New(NodeKind::kCallBlock);
    s_.Take();
    ParseParameters(*node);
    node->text = "caller";
    node->expr = exprs_.Parse();
    if (node->expr->kind != ExprKind::kCall) s_.Fail("a call block needs a call");
    EndTag();
    node->body = ParseBodyOutsideLoops("endcall");
    End("endcall");
    return node;
  }
  NodePtr ParseWith() {
    NodePtr node = New(NodeKind::kWith);
    s_.Take();
    while (!s_.failed() && !s_.Is(TokenKind::kBlockEnd)) {
      Parameter variable;
      variable.name = s_.ExpectName("a variable's name");
      s_.ExpectOperator("=");
      variable.fallback = exprs_.Parse();
      node->parameters.push_back(std::move(variable));
      if (!s_.TakeOperator(",")) break;
    }
    EndTag();
    node->body = ParseBody({"endwith"});
    End("endwith");
    return node;
  }
  NodePtr ParseFilterBlock() {
    NodePtr node = New(NodeKind::kFilterBlock);
    s_.Take();
    node->expr = exprs_.ParseFilterChain();
    EndTag();
    node->body = ParseBody({"endfilter"});
    End("endfilter");
    return node;
  }
  NodePtr ParseGeneration() {
    NodePtr node = New(NodeKind::kGeneration);
    s_.Take();
    EndTag();
    node->body = ParseBody({"endgeneration"});
    End("endgeneration");
    return node;
  }
  NodePtr ParseJump() {
    if (loops_ == 0) s_.Fail("outside of a loop");
    NodePtr node = New(s_.IsName("break") ? NodeKind::kBreak : NodeKind::kContinue);
    s_.Take();
    EndTag();
    return node;
  }

  TokenStream s_;
  ExprParser exprs_;
  int loops_ = 0;
};

}  // namespace

StatusOr<Body> ParseTemplate(std::string_view source, int max_depth) {
  LLMD_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens), max_depth).Run();
}

}  // namespace llmd::text::tmpl
