// Tests (`x is defined`) and global functions.
#include <algorithm>
#include <ctime>
#include <map>

#include "text/template/strings.h"

namespace llmd::text::tmpl {
namespace {

template <bool (Value::*Is)() const>
bool Kind(Interpreter&, const Value& v, const Arguments&) {
  return (v.*Is)();
}
bool Defined(Interpreter&, const Value& v, const Arguments&) {
  return !v.is_undefined();
}
bool Mapping(Interpreter&, const Value& v, const Arguments&) {
  return v.is_dict() && !v.dict().is_namespace;
}
bool Sequence(Interpreter& in, const Value& v, const Arguments& a) {
  return v.is_string() || v.is_list() || v.is_undefined() || Mapping(in, v, a);
}
bool True(Interpreter&, const Value& v, const Arguments&) {
  return v.is_bool() && v.Truthy();
}
bool False(Interpreter&, const Value& v, const Arguments&) {
  return v.is_bool() && !v.Truthy();
}
bool Odd(Interpreter&, const Value& v, const Arguments&) {
  return v.is_integral() && v.integer() % 2 != 0;
}
bool Even(Interpreter&, const Value& v, const Arguments&) {
  return v.is_integral() && v.integer() % 2 == 0;
}
bool DivisibleBy(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* by = a.Get(0, "num");
  if (v.is_integral() && by != nullptr && by->is_integral() && by->integer() > 0)
    return v.integer() % by->integer() == 0;
  in.Fail("divisibleby needs integers, the divisor above zero");
  return false;
}
bool IsLower(Interpreter&, const Value& v, const Arguments&) {
  const std::string text = ToText(v);
  return text == Lower(text) && text != Upper(text);
}
bool IsUpper(Interpreter&, const Value& v, const Arguments&) {
  const std::string text = ToText(v);
  return text == Upper(text) && text != Lower(text);
}
bool In(Interpreter& in, const Value& v, const Arguments& a) {
  return !a.positional.empty() && in.Contains(a.positional[0], v);
}
bool FilterExists(Interpreter& in, const Value& v, const Arguments&) {
  return in.KnownFilter(ToText(v));
}

enum class Order { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
template <Order kOrder>
bool Ordered(Interpreter& in, const Value& v, const Arguments& a) {
  if (a.positional.empty()) {
    in.Fail("a comparison test needs a value");
    return false;
  }
  const Value& other = a.positional[0];
  if (kOrder == Order::kEqual || kOrder == Order::kNotEqual)
    return Equal(v, other) == (kOrder == Order::kEqual);
  const auto order = Compare(v, other);
  if (!order) in.Fail("values of these types cannot be ordered");
  const int c = order.value_or(0);
  return kOrder == Order::kLess        ? c < 0
         : kOrder == Order::kLessEqual ? c <= 0
         : kOrder == Order::kGreater   ? c > 0
                                       : c >= 0;
}

Value Namespace(Interpreter& in, const Arguments& args) {
  Value made = in.NewNamespace();
  if (!args.positional.empty() && args.positional[0].is_dict())
    made.dict_object().items = args.positional[0].dict().items;
  for (const auto& [name, value] : args.named) made.dict_object().Set(Value::Str(name), value);
  return made;
}
Value MakeDict(Interpreter&, const Arguments& args) {
  auto dict = std::make_shared<Dict>();
  if (!args.positional.empty() && args.positional[0].is_dict())
    dict->items = args.positional[0].dict().items;
  for (const auto& [name, value] : args.named) dict->Set(Value::Str(name), value);
  return Value(std::move(dict));
}
Value RaiseException(Interpreter& in, const Arguments& args) {
  return in.FailPlainly(InvalidArgument(args.positional.empty()
                                            ? "the chat template raised an exception"
                                            : ToText(args.positional[0])));
}
Value Range(Interpreter& in, const Arguments& args) {
  for (const Value& v : args.positional) {
    if (!v.is_integral()) return in.Fail("range needs integers");
  }
  const size_t n = args.positional.size();
  if (n < 1 || n > 3) return in.Fail("range takes one to three integers");
  const int64_t start = n > 1 ? args.positional[0].integer() : 0;
  const int64_t stop = args.positional[n > 1 ? 1 : 0].integer();
  const int64_t step = n > 2 ? args.positional[2].integer() : 1;
  if (step == 0) return in.Fail("range: the step must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (!in.Charge(1)) return Value();
    items.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::MakeList(std::move(items));
}
Value StrftimeNow(Interpreter& in, const Arguments& args) {
  if (args.positional.size() != 1 || !args.positional[0].is_string())
    return in.Fail("strftime_now needs a format");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[1024];
  const std::string& format = args.positional[0].str();
  const size_t n =
      format.empty() ? 0 : std::strftime(buffer, sizeof buffer, format.c_str(), &local);
  if (n == 0 && !format.empty())
    return in.Fail("strftime_now: the result is empty or longer than 1023 bytes");
  return in.Str(std::string(buffer, n));
}

}  // namespace

Predicate FindTest(std::string_view name) {
  static const std::map<std::string_view, Predicate> tests = {
      {"!=", Ordered<Order::kNotEqual>},
      {"<", Ordered<Order::kLess>},
      {"<=", Ordered<Order::kLessEqual>},
      {"==", Ordered<Order::kEqual>},
      {">", Ordered<Order::kGreater>},
      {">=", Ordered<Order::kGreaterEqual>},
      {"boolean", Kind<&Value::is_bool>},
      {"callable", Kind<&Value::is_callable>},
      {"defined", Defined},
      {"divisibleby", DivisibleBy},
      {"eq", Ordered<Order::kEqual>},
      {"equalto", Ordered<Order::kEqual>},
      {"even", Even},
      {"false", False},
      {"filter", FilterExists},
      {"float", Kind<&Value::is_double>},
      {"ge", Ordered<Order::kGreaterEqual>},
      {"greaterthan", Ordered<Order::kGreater>},
      {"gt", Ordered<Order::kGreater>},
      {"in", In},
      {"integer", Kind<&Value::is_int>},
      {"iterable", Sequence},
      {"le", Ordered<Order::kLessEqual>},
      {"lessthan", Ordered<Order::kLess>},
      {"lower", IsLower},
      {"lt", Ordered<Order::kLess>},
      {"mapping", Mapping},
      {"ne", Ordered<Order::kNotEqual>},
      {"none", Kind<&Value::is_none>},
      {"number", Kind<&Value::is_number>},
      {"odd", Odd},
      {"sameas", Ordered<Order::kEqual>},
      {"sequence", Sequence},
      {"string", Kind<&Value::is_string>},
      {"true", True},
      {"undefined", Kind<&Value::is_undefined>},
      {"upper", IsUpper}};
  const auto found = tests.find(name);
  return found == tests.end() ? nullptr : found->second;
}

Value FindGlobal(const std::string& name) {
  using Function = Value (*)(Interpreter&, const Arguments&);
  static const std::map<std::string_view, Function> functions = {
      {"dict", MakeDict},
      {"namespace", Namespace},
      {"raise_exception", RaiseException},
      {"range", Range},
      {"strftime_now", StrftimeNow}};
  const auto found = functions.find(name);
  if (found == functions.end()) return Value();
  auto callable = std::make_shared<Callable>();
  callable->name = name;
  callable->call = found->second;
  return Value(std::shared_ptr<const Callable>(std::move(callable)));
}

}  // namespace llmd::text::tmpl
