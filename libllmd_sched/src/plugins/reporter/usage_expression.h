// The part of CEL that reports need: arithmetic, comparison, && || ! ?:, has(), int() and double()
// over the fields of `usage`. Checked when it is compiled, so that evaluation cannot meet a wrong
// type. Unlike CEL, integers and doubles may be mixed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/sched/parser.h"
#include "llmd/status.h"

namespace llmd::sched {

// Immutable once compiled; evaluation allocates nothing.
class UsageExpression {
 public:
  enum class Type { kBool, kInt, kDouble };
  // Nesting and length are bounded. INVALID_ARGUMENT names what is wrong and the byte where.
  static StatusOr<UsageExpression> Compile(std::string_view text);

  Type type() const { return nodes_[root_].type; }
  // The value, a boolean as 0 or 1; none when an integer is divided by zero. Fields that were not
  // said are 0.
  std::optional<double> Evaluate(const Usage& usage) const { return At(root_, usage); }

 private:
  friend class UsageExpressionCompiler;
  enum class Op {
    kConstant,
    kField,
    kHas,
    kNot,
    kNegate,
    kTruncate,
    kAdd,
    kSubtract,
    kMultiply,
    kDivide,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
    kEqual,
    kNotEqual,
    kAnd,
    kOr,
    kChoose,
  };
  struct Node {
    Op op = Op::kConstant;
    Type type = Type::kDouble;
    double value = 0;  // of a constant
    int64_t Usage::* field = nullptr;
    std::array<int, 3> child = {-1, -1, -1};
  };
  std::optional<double> At(int node, const Usage& usage) const;
  static std::optional<double> Apply(const Node& node, double a, double b);

  std::vector<Node> nodes_;
  int root_ = 0;
};

}  // namespace llmd::sched
