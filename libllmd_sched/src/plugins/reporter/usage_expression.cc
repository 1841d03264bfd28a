#include "plugins/reporter/usage_expression.h"

#include <charconv>
#include <cmath>
#include <utility>

namespace llmd::sched {
namespace {

constexpr size_t kMaxBytes = 4096;
constexpr int kMaxDepth = 64;

struct Field {
  std::string_view path;
  int64_t Usage::* member;
};
constexpr std::array<Field, 4> kFields = {{
    {"usage.prompt_tokens", &Usage::prompt_tokens},
    {"usage.completion_tokens", &Usage::completion_tokens},
    {"usage.total_tokens", &Usage::total_tokens},
    {"usage.prompt_tokens_details.cached_tokens", &Usage::cached_tokens},
}};

bool IsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

// Recursive descent over the text; nodes are appended as their operands are known.
class UsageExpressionCompiler {
  using Op = UsageExpression::Op;
  using Type = UsageExpression::Type;
  using Node = UsageExpression::Node;

 public:
  explicit UsageExpressionCompiler(std::string_view text) : text_(text) {}

  StatusOr<UsageExpression> Run() {
    if (text_.size() > kMaxBytes) return Fail("expected at most 4096 bytes");
    LLMD_ASSIGN_OR_RETURN(out_.root_, Choice());
    Blanks();
    if (at_ < text_.size()) return Fail("unexpected '" + std::string(1, text_[at_]) + "'");
    return std::move(out_);
  }

 private:
  struct Level {
    std::string_view symbol;
    Op op;
  };

  StatusOr<int> Choice() {
    if (++depth_ > kMaxDepth) return Fail("nested deeper than 64");
    LLMD_ASSIGN_OR_RETURN(const int condition, Or());
    int result = condition;
    if (Take("?")) {
      LLMD_ASSIGN_OR_RETURN(const int yes, Choice());
      if (!Take(":")) return Fail("expected ':'");
      LLMD_ASSIGN_OR_RETURN(const int no, Choice());
      LLMD_ASSIGN_OR_RETURN(result, Choose(condition, yes, no));
    }
    --depth_;
    return result;
  }
  StatusOr<int> Or() { return Left({{{"||", Op::kOr}}}, &UsageExpressionCompiler::And); }
  StatusOr<int> And() { return Left({{{"&&", Op::kAnd}}}, &UsageExpressionCompiler::Relation); }
  StatusOr<int> Relation() {
    return Left({{{"<=", Op::kLessEqual},
                  {">=", Op::kGreaterEqual},
                  {"==", Op::kEqual},
                  {"!=", Op::kNotEqual},
                  {"<", Op::kLess},
                  {">", Op::kGreater}}},
                &UsageExpressionCompiler::Sum);
  }
  StatusOr<int> Sum() {
    return Left({{{"+", Op::kAdd}, {"-", Op::kSubtract}}}, &UsageExpressionCompiler::Product);
  }
  StatusOr<int> Product() {
    return Left({{{"*", Op::kMultiply}, {"/", Op::kDivide}}}, &UsageExpressionCompiler::Unary);
  }
  StatusOr<int> Left(const std::vector<Level>& levels,
                     StatusOr<int> (UsageExpressionCompiler::*next)()) {
    LLMD_ASSIGN_OR_RETURN(int left, (this->*next)());
    for (bool more = true; more;) {
      more = false;
      for (const Level& level : levels) {
        if (!Take(level.symbol)) continue;
        LLMD_ASSIGN_OR_RETURN(const int right, (this->*next)());
        LLMD_ASSIGN_OR_RETURN(left, Binary(level.op, left, right));
        more = true;
        break;
      }
    }
    return left;
  }

  StatusOr<int> Unary() {
    if (++depth_ > kMaxDepth) return Fail("nested deeper than 64");
    StatusOr<int> result = Take("!")   ? Prefix(Op::kNot)
                           : Take("-") ? Prefix(Op::kNegate)
                                       : Primary();
    --depth_;
    return result;
  }
  StatusOr<int> Prefix(Op op) {
    LLMD_ASSIGN_OR_RETURN(const int operand, Unary());
    const bool is_bool = TypeOf(operand) == Type::kBool;
    if (is_bool != (op == Op::kNot)) return Fail(is_bool ? "'-' of a boolean" : "'!' of a number");
    return Add({.op = op, .type = TypeOf(operand), .child = {operand, -1, -1}});
  }

  StatusOr<int> Primary() {
    if (Take("(")) {
      LLMD_ASSIGN_OR_RETURN(const int inner, Choice());
      if (!Take(")")) return Fail("expected ')'");
      return inner;
    }
    const size_t begin = at_;
    while (at_ < text_.size() && IsWord(text_[at_])) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word.empty()) return Fail("expected a number, a field of usage or '('");
    if (IsDigit(word[0]) || word[0] == '.') return Number(word);
    if (word == "true" || word == "false") {
      return Add({.type = Type::kBool, .value = word == "true" ? 1.0 : 0.0});
    }
    if (word == "has" || word == "int" || word == "double") return Call(word);
    LLMD_ASSIGN_OR_RETURN(const auto field, FieldOf(word));
    return Add({.op = Op::kField, .type = Type::kDouble, .field = field});
  }

  StatusOr<int> Number(std::string_view word) {
    double value = 0;
    const auto [end, ec] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (ec != std::errc() || end != word.data() + word.size())
      return Fail("expected a number, got '" + std::string(word) + "'");
    const bool whole = word.find_first_of(".eE") == std::string_view::npos;
    return Add({.type = whole ? Type::kInt : Type::kDouble, .value = value});
  }

  StatusOr<int> Call(std::string_view name) {
    if (!Take("(")) return Fail("expected '(' after " + std::string(name));
    if (name == "has") {
      Blanks();
      const size_t begin = at_;
      while (at_ < text_.size() && IsWord(text_[at_])) ++at_;
      LLMD_ASSIGN_OR_RETURN(const auto field, FieldOf(text_.substr(begin, at_ - begin)));
      if (!Take(")")) return Fail("expected ')'");
      return Add({.op = Op::kHas, .type = Type::kBool, .field = field});
    }
    LLMD_ASSIGN_OR_RETURN(const int inner, Choice());
    if (!Take(")")) return Fail("expected ')'");
    if (TypeOf(inner) == Type::kBool) return Fail(std::string(name) + "() of a boolean");
    if (name == "int")
      return Add({.op = Op::kTruncate, .type = Type::kInt, .child = {inner, -1, -1}});
    // Adding nothing turns an integer into a double.
    const int zero = Add({.type = Type::kDouble});
    return Add({.op = Op::kAdd, .type = Type::kDouble, .child = {inner, zero, -1}});
  }

  StatusOr<int64_t Usage::*> FieldOf(std::string_view word) {
    std::string known;
    for (const Field& field : kFields) {
      if (field.path == word) return field.member;
      known += (known.empty() ? "" : ", ") + std::string(field.path);
    }
    return Fail("'" + std::string(word) + "' is not known; known: " + known);
  }

  StatusOr<int> Binary(Op op, int left, int right) {
    const bool bools = TypeOf(left) == Type::kBool;
    if (bools != (TypeOf(right) == Type::kBool)) return Fail("a boolean beside a number");
    const bool logic = op == Op::kAnd || op == Op::kOr;
    const bool equality = op == Op::kEqual || op == Op::kNotEqual;
    if (bools != logic && !(bools && equality))
      return Fail(logic ? "expected booleans" : "expected numbers");
    const bool arithmetic = op >= Op::kAdd && op <= Op::kDivide;
    const bool ints = TypeOf(left) == Type::kInt && TypeOf(right) == Type::kInt;
    const Type type = !arithmetic ? Type::kBool : ints ? Type::kInt : Type::kDouble;
    return Add({.op = op, .type = type, .child = {left, right, -1}});
  }

  StatusOr<int> Choose(int condition, int yes, int no) {
    if (TypeOf(condition) != Type::kBool) return Fail("expected a boolean before '?'");
    if ((TypeOf(yes) == Type::kBool) != (TypeOf(no) == Type::kBool))
      return Fail("a boolean beside a number");
    const Type type = TypeOf(yes) == TypeOf(no) ? TypeOf(yes) : Type::kDouble;
    return Add({.op = Op::kChoose, .type = type, .child = {condition, yes, no}});
  }

  Type TypeOf(int node) const { return out_.nodes_[node].type; }
  int Add(Node node) {
    out_.nodes_.push_back(node);
    return static_cast<int>(out_.nodes_.size() - 1);
  }
  void Blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t'))
      ++at_;
  }
  bool Take(std::string_view symbol) {
    Blanks();
    if (!text_.substr(at_).starts_with(symbol)) return false;
    at_ += symbol.size();
    Blanks();
    return true;
  }
  Status Fail(const std::string& what) const {
    return InvalidArgument("at byte " + std::to_string(at_) + ": " + what);
  }

  const std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  UsageExpression out_;
};

StatusOr<UsageExpression> UsageExpression::Compile(std::string_view text) {
  return UsageExpressionCompiler(text).Run();
}

std::optional<double> UsageExpression::At(int index, const Usage& usage) const {
  const Node& node = nodes_[index];
  if (node.op == Op::kConstant) return node.value;
  if (node.op == Op::kHas) return usage.*node.field >= 0 ? 1.0 : 0.0;
  if (node.op == Op::kField)
    return usage.*node.field > 0 ? static_cast<double>(usage.*node.field) : 0.0;
  const std::optional<double> a = At(node.child[0], usage);
  if (!a) return std::nullopt;
  if (node.op == Op::kChoose) return At(node.child[*a != 0 ? 1 : 2], usage);
  if (node.op == Op::kAnd && *a == 0) return 0.0;
  if (node.op == Op::kOr && *a != 0) return 1.0;
  if (node.child[1] < 0) return Apply(node, *a, 0);
  const std::optional<double> b = At(node.child[1], usage);
  return b ? Apply(node, *a, *b) : std::nullopt;
}

std::optional<double> UsageExpression::Apply(const Node& node, double a, double b) {
  switch (node.op) {
    case Op::kNot:
      return a == 0 ? 1.0 : 0.0;
    case Op::kNegate:
      return -a;
    case Op::kTruncate:
      return std::trunc(a);
    case Op::kAdd:
      return a + b;
    case Op::kSubtract:
      return a - b;
    case Op::kMultiply:
      return a * b;
    case Op::kDivide:
      if (node.type == Type::kInt) return b == 0 ? std::nullopt : std::optional(std::trunc(a / b));
      return a / b;
    case Op::kLess:
      return a < b;
    case Op::kLessEqual:
      return a <= b;
    case Op::kGreater:
      return a > b;
    case Op::kGreaterEqual:
      return a >= b;
    case Op::kEqual:
      return a == b;
    case Op::kNotEqual:
      return a != b;
    default:  // && and || whose left side has not decided
      return b;
  }
}

}  // namespace llmd::sched
