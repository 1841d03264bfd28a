// The syntax tree of a template. Immutable after parsing, shared by all renders.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/lexer.h"
#include "text/template/value.h"

namespace llmd::text::tmpl {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kLiteral,     // literal
  kName,        // name
  kList,        // args
  kTuple,       // args
  kDict,        // args: key, value, key, value …
  kAttribute,   // args[0] . name
  kSubscript,   // args[0] [ args[1] ]
  kSlice,       // args[0] [ args[1] : args[2] : args[3] ], absent parts null
  kCall,        // args[0] ( args[1…], named )
  kFilter,      // args[0] | name ( args[1…], named ); args[0] null inside a filter block
  kTest,        // args[0] is name ( args[1…] )
  kNot,         // args[0]
  kNegate,      // args[0]
  kPlus,        // args[0]
  kAnd,         // args…
  kOr,          // args…
  kConcat,      // args…
  kArithmetic,  // args[0] ops[0] args[1] ops[1] …, left to right
  kCompare,     // the same, chained as in Python
  kCondition,   // args[0] if args[1] else args[2] (may be null)
  kSplat,       // *args[0] among the arguments of a call
  kMapSplat,    // **args[0] there
};

struct Expr {
  ExprKind kind;
  Position at;
  std::string name;
  Value literal;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> ops;
};

struct Node;
using NodePtr = std::unique_ptr<Node>;
using Body = std::vector<NodePtr>;

enum class NodeKind {
  kText,
  kOutput,
  kFor,
  kIf,
  kSet,
  kSetBlock,
  kMacro,
  kFilterBlock,
  kGeneration,
  kCallBlock,
  kWith,
  kBreak,
  kContinue
};

struct Branch {
  ExprPtr condition;  // null for else
  Body body;
};

struct Parameter {
  std::string name;
  ExprPtr fallback;  // may be null
};

struct Node {
  NodeKind kind;
  Position at;
  std::string text;                  // kText; the name of a macro; the attribute of `set ns.x`
  std::vector<std::string> targets;  // kFor, kSet, kSetBlock
  ExprPtr expr;                  // output, iterable, value, filter chain, the call of kCallBlock
  ExprPtr condition;             // for … if
  std::vector<Branch> branches;  // kIf
  std::vector<Parameter> parameters;  // kMacro, kCallBlock; names and values of kWith
  // Whether the body of a macro has the names that take what is left of the arguments, and the one
  // for the body of a call block.
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;
  Body body;
  Body otherwise;  // for … else
};

}  // namespace llmd::text::tmpl
