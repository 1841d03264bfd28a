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
// Has a length and places.
bool Sequence(Interpreter&, const Value& v, const Arguments&) {
  return v.is_string() || v.is_indexed() || v.is_mapping() || v.is_undefined();
}
bool Iterable(Interpreter&, const Value& v, const Arguments&) {
  return v.is_string() || v.is_list() || v.is_mapping() || v.is_undefined();
}
// An undefined value has a call operator, which fails.
bool CallableTest(Interpreter&, const Value& v, const Arguments&) {
  return v.is_callable() || v.is_undefined();
}
bool True(Interpreter&, const Value& v, const Arguments&) {
  return v.is_bool() && v.Truthy();
}
bool False(Interpreter&, const Value& v, const Arguments&) {
  return v.is_bool() && !v.Truthy();
}
// The rest of a division by an integer, for odd, even and divisibleby.
bool DividesTo(Interpreter& in, const Value& v, const Value& by, Integer rest) {
  const Value left = in.Arithmetic("%", v, by);
  return !in.failed() && Equal(left, Value::Int(rest));
}
bool Odd(Interpreter& in, const Value& v, const Arguments&) {
  return DividesTo(in, v, Value::Int(2), 1);
}
bool Even(Interpreter& in, const Value& v, const Arguments&) {
  return DividesTo(in, v, Value::Int(2), 0);
}
bool DivisibleBy(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* by = a.Get(0, "num");
  if (by == nullptr) in.Fail("divisibleby needs a number");
  return by != nullptr && DividesTo(in, v, *by, 0);
}
bool CallsTrue(Interpreter& in, const Value& v, const char* method) {
  return FindStringMethod(method)(in, Value::Str(ToText(v)), {}).Truthy();
}
bool IsLower(Interpreter& in, const Value& v, const Arguments&) {
  return CallsTrue(in, v, "islower");
}
bool IsUpper(Interpreter& in, const Value& v, const Arguments&) {
  return CallsTrue(in, v, "isupper");
}
bool In(Interpreter& in, const Value& v, const Arguments& a) {
  return !a.positional.empty() && in.Contains(a.positional[0], v);
}
bool FilterExists(Interpreter& in, const Value& v, const Arguments&) {
  if (v.Hashable()) return v.is_string() && FindFilter(v.str()) != nullptr;
  return in.CheckHashable(v);
}
bool TestExists(Interpreter& in, const Value& v, const Arguments&) {
  if (v.Hashable()) return v.is_string() && FindTest(v.str()) != nullptr;
  return in.CheckHashable(v);
}
// The same object; equal values of the same kind for what has none of its own.
bool SameAs(Interpreter&, const Value& v, const Arguments& a) {
  if (a.positional.empty()) return false;
  const Value& other = a.positional[0];
  if (v.is_list() && other.is_list()) return &v.list_object() == &other.list_object();
  if (v.is_dict() && other.is_dict()) return v.dict_pointer() == other.dict_pointer();
  return v.TypeName() == other.TypeName() && Equal(v, other);
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

// dict(mapping or pairs, name=value…).
Value MakeDict(Interpreter& in, const Arguments& args) {
  auto dict = std::make_shared<Dict>();
  if (args.positional.size() > 1) return in.Fail("dict takes one mapping or list of pairs");
  if (!args.positional.empty() && args.positional[0].is_mapping()) {
    dict->items = args.positional[0].dict().items;
  } else if (!args.positional.empty()) {
    if (args.positional[0].is_undefined()) return in.Fail(args.positional[0].undefined().what);
    for (const Value& pair : in.Iterate(args.positional[0])) {
      const std::vector<Value> parts = in.Iterate(pair);
      if (in.failed() || parts.size() != 2) return in.Fail("dict: an element is no pair");
      if (!in.CheckHashable(parts[0]) || !in.Charge(dict->items.size() / 8 + 1)) return Value();
      dict->Set(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : args.named) dict->Set(Value::Str(name), value);
  return in.Charge(dict->items.size()) ? Value(std::move(dict)) : Value();
}
Value Namespace(Interpreter& in, const Arguments& args) {
  Value made = in.NewNamespace();
  if (!args.positional.empty()) {
    const Value from = MakeDict(in, {{args.positional[0]}, {}});
    if (in.failed()) return Value();
    made.dict_object().items = from.dict().items;
  }
  for (const auto& [name, value] : args.named) made.dict_object().Set(Value::Str(name), value);
  return made;
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
  const Integer start = n > 1 ? args.positional[0].integer() : 0;
  const Integer stop = args.positional[n > 1 ? 1 : 0].integer();
  const Integer step = n > 2 ? args.positional[2].integer() : 1;
  if (step == 0) return in.Fail("range: the step must not be zero");
  auto list = std::make_shared<List>();
  list->kind = ListKind::kRange;
  list->range = {start, stop, step};
  for (Integer i = start; step > 0 ? i < stop : i > stop;) {
    if (!in.Charge(1)) return Value();
    list->items.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value(std::move(list));
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
      {"callable", CallableTest},
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
      {"iterable", Iterable},
      {"le", Ordered<Order::kLessEqual>},
      {"lessthan", Ordered<Order::kLess>},
      {"lower", IsLower},
      {"lt", Ordered<Order::kLess>},
      {"mapping", Kind<&Value::is_mapping>},
      {"ne", Ordered<Order::kNotEqual>},
      {"none", Kind<&Value::is_none>},
      {"number", Kind<&Value::is_number>},
      {"odd", Odd},
      {"sameas", SameAs},
      {"sequence", Sequence},
      {"string", Kind<&Value::is_string>},
      {"test", TestExists},
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
