// Arithmetic, membership, iteration and slices, with Python's rules.
#include <algorithm>
#include <cmath>

#include "text/template/interpreter.h"

namespace llmd::text::tmpl {
namespace {

int64_t FloorDivide(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

bool IntegerOp(const std::string& op, int64_t a, int64_t b, int64_t& out) {
  if (op == "+") return !__builtin_add_overflow(a, b, &out);
  if (op == "-") return !__builtin_sub_overflow(a, b, &out);
  if (op == "*") return !__builtin_mul_overflow(a, b, &out);
  if (a == INT64_MIN && b == -1) return false;
  out = op == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
  return true;
}

bool IntegerPower(int64_t base, int64_t exponent, int64_t& out) {
  out = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 != 0 && __builtin_mul_overflow(out, base, &out)) return false;
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return false;
  }
  return true;
}

double DoubleOp(const std::string& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "/") return a / b;
  if (op == "//") return std::floor(a / b);
  if (op == "**") return std::pow(a, b);
  return a - std::floor(a / b) * b;
}

Value NumberOp(Interpreter& in, const std::string& op, const Value& a, const Value& b) {
  if ((op == "/" || op == "//" || op == "%") && b.number() == 0) return in.Fail("division by zero");
  int64_t out = 0;
  if (a.is_integral() && b.is_integral() && op != "/") {
    if (op == "**" && b.integer() >= 0) {
      return IntegerPower(a.integer(), b.integer(), out) ? Value::Int(out)
                                                         : in.Fail("integer overflow");
    }
    if (op != "**")
      return IntegerOp(op, a.integer(), b.integer(), out) ? Value::Int(out)
                                                          : in.Fail("integer overflow");
  }
  return Value(DoubleOp(op, a.number(), b.number()));
}

Value Repeat(Interpreter& in, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const size_t size = what.is_string() ? what.str().size() / 64 + 1 : what.list().size() + 1;
  size_t cost = 0;
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
  return Value::MakeList(std::move(items), what.list_object().tuple);
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
  range.step = given(step) ? step->integer() : 1;
  const bool down = range.step < 0;
  const auto clamp = [&](const Value* v, int64_t fallback) {
    if (!given(v)) return fallback;
    const int64_t at = v->integer() < 0 ? std::max(v->integer(), -size - 1) + size : v->integer();
    return std::clamp<int64_t>(at, down ? -1 : 0, down ? size - 1 : size);
  };
  range.start = clamp(start, down ? size - 1 : 0);
  range.stop = clamp(stop, down ? -1 : size);
  return true;
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
  if (op == "+" && a.is_string() && b.is_string()) {
    return Charge((a.str().size() + b.str().size()) / 64) ? Value::Str(a.str() + b.str()) : Value();
  }
  if (op == "+" && a.is_list() && b.is_list() && a.list_object().tuple == b.list_object().tuple) {
    if (!Charge(a.list().size() + b.list().size())) return Value();
    std::vector<Value> items = a.list();
    items.insert(items.end(), b.list().begin(), b.list().end());
    return Value::MakeList(std::move(items), a.list_object().tuple);
  }
  const auto repeats = [](const Value& v) { return v.is_string() || v.is_list(); };
  if (op == "*" && repeats(a) && b.is_integral()) return Repeat(*this, a, b.integer());
  if (op == "*" && repeats(b) && a.is_integral()) return Repeat(*this, b, a.integer());
  if (op == "%" && a.is_string()) {
    const Arguments args{b.is_list() && b.list_object().tuple ? b.list() : std::vector<Value>{b},
                         {}};
    return ApplyFilter("format", a, args);
  }
  return Fail("'" + op + "' does not work on '" + std::string(a.TypeName()) + "' and '" +
              std::string(b.TypeName()) + "'");
}

std::vector<Value> Interpreter::Iterate(const Value& value) {
  std::vector<Value> items;
  if (failed() || value.is_undefined()) return items;
  if (value.is_list()) {
    if (Charge(value.list().size() / 8)) items = value.list();
  } else if (value.is_dict() && !value.dict().is_namespace) {
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

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (failed() || container.is_undefined()) return false;
  if (container.is_string()) {
    if (item.is_string())
      return Charge(container.str().size() / 64) &&
             container.str().find(item.str()) != std::string::npos;
    Fail("'in <string>' requires string as left operand, not " + std::string(item.TypeName()));
    return false;
  }
  if (container.is_list()) {
    return Charge(container.list().size() / 8) &&
           std::any_of(container.list().begin(), container.list().end(),
                       [&](const Value& v) { return Equal(v, item); });
  }
  if (container.is_dict() && !container.dict().is_namespace)
    return container.dict().Find(item) != nullptr;
  Fail("argument of type '" + std::string(container.TypeName()) + "' is not iterable");
  return false;
}

Value Interpreter::Slice(const Value& object, const Value* start, const Value* stop,
                         const Value* step) {
  if (!object.is_string() && !object.is_list()) {
    if (object.is_undefined()) return Fail(object.undefined().what);
    return Value::MakeUndefined("a slice of '" + std::string(object.TypeName()) + " object'");
  }
  const auto characters =
      object.is_string() ? Characters(object.str()) : std::vector<std::string_view>();
  const size_t size = object.is_string() ? characters.size() : object.list().size();
  Range range{};
  if (!AdjustSlice(start, stop, step, static_cast<int64_t>(size), range))
    return Fail("slice indices must be integers or none");
  if (range.step == 0) return Fail("slice step cannot be zero");
  if (!Charge(object.is_string() ? size / 64 : size)) return Value();
  std::string text;
  std::vector<Value> items;
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;) {
    if (object.is_string()) {
      text += characters[i];
    } else {
      items.push_back(object.list()[i]);
    }
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
  return object.is_string() ? Value::Str(std::move(text))
                            : Value::MakeList(std::move(items), object.list_object().tuple);
}

}  // namespace llmd::text::tmpl
