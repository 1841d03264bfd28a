// Arithmetic, membership, iteration and slices, with Python's rules.
#include <algorithm>
#include <cmath>
#include <utility>

#include "text/template/strings.h"

namespace llmd::text::tmpl {
namespace {

Integer FloorDivide(Integer a, Integer b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

constexpr Integer kLeast = Integer{1} << 126 << 1;  // -2^127

bool IntegerOp(const std::string& op, Integer a, Integer b, Integer& out) {
  if (op == "+") return !__builtin_add_overflow(a, b, &out);
  if (op == "-") return !__builtin_sub_overflow(a, b, &out);
  if (op == "*") return !__builtin_mul_overflow(a, b, &out);
  if (a == kLeast && b == -1) return false;
  out = op == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
  return true;
}

bool IntegerPower(Integer base, Integer exponent, Integer& out) {
  out = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 != 0 && __builtin_mul_overflow(out, base, &out)) return false;
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return false;
  }
  return true;
}

// The remainder has the divisor's sign.
double Modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double FloorDivide(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

double DoubleOp(const std::string& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "/") return a / b;
  if (op == "//") return FloorDivide(a, b);
  if (op == "**") return std::pow(a, b);
  return Modulo(a, b);
}

Value IntegerResult(Interpreter& in, const std::string& op, Integer a, Integer b) {
  Integer out = 0;
  const bool fits = op == "**" ? IntegerPower(a, b, out) : IntegerOp(op, a, b, out);
  return fits ? Value::Int(out) : in.Fail("integer overflow");
}

Value NumberOp(Interpreter& in, const std::string& op, const Value& a, const Value& b) {
  if ((op == "/" || op == "//" || op == "%") && b.number() == 0) return in.Fail("division by zero");
  if (a.is_integral() && b.is_integral() && op != "/" && (op != "**" || b.integer() >= 0))
    return IntegerResult(in, op, a.integer(), b.integer());
  if (op != "**") return Value(DoubleOp(op, a.number(), b.number()));
  if (a.number() == 0 && b.number() < 0) return in.Fail("0.0 cannot be raised to a negative power");
  const double power = DoubleOp(op, a.number(), b.number());
  if (std::isnan(power) && !std::isnan(a.number()) && !std::isnan(b.number()))
    return in.Fail("a power that is no real number");
  if (std::isinf(power) && std::isfinite(a.number()) && std::isfinite(b.number()))
    return in.Fail("the power is out of range");
  return Value(power);
}

Value Repeat(Interpreter& in, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const size_t size = what.is_string() ? what.str().size() / 64 + 1 : what.list().size() + 1;
  size_t cost = 0;
  const bool nothing = what.is_string() ? what.str().empty() : what.list().empty();
  if (nothing) return what;
  if (__builtin_mul_overflow(size, count, &cost)) cost = SIZE_MAX;
  if (!in.Charge(cost)) return Value();
  if (what.is_string()) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += what.str();
    return Value::Str(std::move(text));
  }
  std::vector<Value> items;
  for (size_t i = 0; i < count; ++i)
    items.insert(items.end(), what.list().begin(), what.list().end());
  return Value::MakeList(std::move(items), what.list_kind());
}

struct Range {
  int64_t start, stop, step;
};

// PySlice_AdjustIndices.
bool AdjustSlice(const Value* start, const Value* stop, const Value* step, int64_t size,
                 Range& range) {
  const auto given = [](const Value* v) { return v != nullptr && !v->is_none(); };
  for (const Value* v : {start, stop, step}) {
    if (given(v) && !v->is_integral()) return false;
  }
  range.step = given(step) ? step->index() : 1;
  const bool down = range.step < 0;
  const auto clamp = [&](const Value* v, int64_t fallback) {
    if (!given(v)) return fallback;
    const int64_t at = v->index() < 0 ? std::max(v->index(), -size - 1) + size : v->index();
    return std::clamp<int64_t>(at, down ? -1 : 0, down ? size - 1 : size);
  };
  range.start = clamp(start, down ? size - 1 : 0);
  range.stop = clamp(stop, down ? -1 : size);
  return true;
}

bool Repeats(const Value& v) {
  return v.is_string() || v.is_plain_list() || v.is_tuple();
}

}  // namespace

Value Interpreter::Arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (failed()) return Value();
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined())
      return Fail(v->undefined().what.empty() ? "arithmetic on an undefined value"
                                              : v->undefined().what);
  }
  if (a.is_number() && b.is_number()) return NumberOp(*this, op, a, b);
  if (op == "+" && a.is_string() && b.is_string() && (a.is_markup() || b.is_markup())) {
    const auto escaped = [](const Value& v) {
      return v.is_markup() ? v.str() : EscapeHtml(v.str());
    };
    return Charge((a.str().size() + b.str().size()) / 16) ? Value::Escaped(escaped(a) + escaped(b))
                                                          : Value();
  }
  if (op == "+" && a.is_string() && b.is_string()) {
    return Charge((a.str().size() + b.str().size()) / 64) ? Value::Str(a.str() + b.str()) : Value();
  }
  const bool same_kind = (a.is_plain_list() && b.is_plain_list()) || (a.is_tuple() && b.is_tuple());
  if (op == "+" && same_kind) {
    if (!Charge(a.list().size() + b.list().size())) return Value();
    std::vector<Value> items = a.list();
    items.insert(items.end(), b.list().begin(), b.list().end());
    return Value::MakeList(std::move(items), a.is_tuple() ? ListKind::kTuple : ListKind::kList);
  }
  if (op == "*" && Repeats(a) && b.is_integral()) return Repeat(*this, a, b.index());
  if (op == "*" && Repeats(b) && a.is_integral()) return Repeat(*this, b, a.index());
  if (op == "%" && a.is_string()) return FormatPercent(*this, a.str(), b);
  return Fail("'" + op + "' does not work on '" + std::string(a.TypeName()) + "' and '" +
              std::string(b.TypeName()) + "'");
}

std::vector<Value> Interpreter::Iterate(const Value& value) {
  std::vector<Value> items;
  if (failed() || value.is_undefined()) return items;
  if (value.is_iterator()) {
    if (Charge(value.list().size() / 8)) items = std::exchange(value.list_object().items, {});
  } else if (value.is_list()) {
    if (Charge(value.list().size() / 8)) items = value.list();
  } else if (value.is_mapping()) {
    if (!Charge(value.dict().items.size() / 8)) return items;
    for (const auto& [key, item] : value.dict().items) items.push_back(key);
  } else if (value.is_string()) {
    if (!Charge(value.str().size())) return items;
    for (const std::string_view c : Characters(value.str()))
      items.push_back(Value::Str(std::string(c)));
  } else {
    Fail("'" + std::string(value.TypeName()) + "' object is not iterable");
  }
  return items;
}

bool Interpreter::CheckHashable(const Value& key) {
  if (key.Hashable()) return true;
  Fail("unhashable type: '" + std::string(key.TypeName()) + "'");
  return false;
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (failed() || container.is_undefined()) return false;
  if (container.is_string()) {
    if (item.is_string())
      return Charge(container.str().size() / 64) &&
             container.str().find(item.str()) != std::string::npos;
    Fail("'in <string>' requires string as left operand, not " + std::string(item.TypeName()));
    return false;
  }
  if (container.is_iterator()) {
    const std::vector<Value> items = Iterate(container);
    return std::any_of(items.begin(), items.end(), [&](const Value& v) { return Equal(v, item); });
  }
  if (container.is_list()) {
    return Charge(container.list().size() / 8) &&
           std::any_of(container.list().begin(), container.list().end(),
                       [&](const Value& v) { return Equal(v, item); });
  }
  if (container.is_mapping()) return CheckHashable(item) && container.dict().Find(item) != nullptr;
  Fail("argument of type '" + std::string(container.TypeName()) + "' is not iterable");
  return false;
}

Value Interpreter::Slice(const Value& object, const Value* start, const Value* stop,
                         const Value* step) {
  if (object.is_undefined()) return Fail(object.undefined().what);
  if (!object.is_string() && !object.is_indexed())
    return Value::MakeUndefined("a slice of '" + std::string(object.TypeName()) + " object'");
  const auto characters =
      object.is_string() ? Characters(object.str()) : std::vector<std::string_view>();
  const size_t size = object.is_string() ? characters.size() : object.list().size();
  Range range{};
  if (!AdjustSlice(start, stop, step, static_cast<int64_t>(size), range) || range.step == 0)
    return Value::MakeUndefined("a slice with these bounds");
  if (!Charge(object.is_string() ? size / 64 : size)) return Value();
  std::string text;
  auto made = std::make_shared<List>();
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;) {
    if (object.is_string()) {
      text += characters[i];
    } else {
      made->items.push_back(object.list()[i]);
    }
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
  if (object.is_string()) return Value::Str(std::move(text));
  made->kind = object.list_kind() == ListKind::kGroup ? ListKind::kTuple : object.list_kind();
  const auto& whole = object.list_object().range;
  made->range = {whole[0] + range.start * whole[2], whole[0] + range.stop * whole[2],
                 whole[2] * range.step};
  return Value(std::move(made));
}

}  // namespace llmd::text::tmpl
