#include <algorithm>

#include "text/template/interpreter.h"

namespace llmd::text::tmpl {

// Bounds the C++ stack, whatever macros and nesting do together.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter& in) : in_(in) {
    if (++in_.depth_ > in_.limits_.max_depth * 10)
      in_.FailPlainly(ResourceExhausted("template: expressions nest too deeply"));
  }
  ~DepthGuard() { --in_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Interpreter& in_;
};

Value Interpreter::Eval(const Expr& e) {
  const DepthGuard depth(*this);
  if (!Charge(1)) return Value();
  at_ = e.at;
  return EvalKind(e);
}

Value Interpreter::EvalKind(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kLiteral:
      return e.literal;
    case ExprKind::kName:
      return EvalName(e);
    case ExprKind::kList:
      return Value::MakeList(EvalAll(e.args, 0));
    case ExprKind::kTuple:
      return Value::MakeList(EvalAll(e.args, 0), ListKind::kTuple);
    case ExprKind::kDict:
      return EvalDict(e);
    case ExprKind::kAttribute:
      return EvalAttribute(e);
    case ExprKind::kSubscript: {
      const Value object = Eval(*e.args[0]);
      return GetItem(object, Eval(*e.args[1]));
    }
    case ExprKind::kSlice:
      return EvalSlice(e);
    case ExprKind::kCall:
      return EvalCall(e);
    case ExprKind::kFilter:
      return EvalFilter(e, nullptr);
    case ExprKind::kTest: {
      const Value subject = Eval(*e.args[0]);
      const Arguments args = EvalArguments(e);
      return Value(!failed() && ApplyTest(e.name, subject, args));
    }
    case ExprKind::kNot:
      return Value(!Eval(*e.args[0]).Truthy());
    case ExprKind::kNegate: {
      const Value value = Eval(*e.args[0]);
      return value.is_double() ? Value(-value.number()) : Arithmetic("-", Value::Int(0), value);
    }
    case ExprKind::kPlus: {
      const Value value = Eval(*e.args[0]);
      return value.is_double() ? value : Arithmetic("+", Value::Int(0), value);
    }
    case ExprKind::kAnd:
    case ExprKind::kOr:
    case ExprKind::kConcat:
      return EvalChain(e);
    case ExprKind::kArithmetic:
      return EvalArithmetic(e);
    case ExprKind::kCompare:
      return EvalCompare(e);
    case ExprKind::kCondition:
      if (Eval(*e.args[1]).Truthy()) return Eval(*e.args[0]);
      return e.args[2] ? Eval(*e.args[2])
                       : Value::MakeUndefined("the inline if-expression without else");
    case ExprKind::kSplat:
    case ExprKind::kMapSplat:
      return Fail("* and ** only stand before the arguments of a call");
  }
  return Value();
}

std::vector<Value> Interpreter::EvalAll(const std::vector<ExprPtr>& exprs, size_t from) {
  std::vector<Value> values;
  for (size_t i = from; i < exprs.size() && !failed(); ++i) values.push_back(Eval(*exprs[i]));
  return values;
}

Arguments Interpreter::EvalArguments(const Expr& e) {
  Arguments args;
  for (size_t i = 1; i < e.args.size() && !failed(); ++i) {
    const Expr& arg = *e.args[i];
    if (arg.kind == ExprKind::kMapSplat) continue;  // behind the named ones
    if (arg.kind != ExprKind::kSplat) {
      args.positional.push_back(Eval(arg));
      continue;
    }
    for (Value& value : Iterate(Eval(*arg.args[0]))) args.positional.push_back(std::move(value));
  }
  for (const auto& [name, value] : e.named) args.named.emplace_back(name, Eval(*value));
  for (size_t i = 1; i < e.args.size() && !failed(); ++i) {
    if (e.args[i]->kind != ExprKind::kMapSplat) continue;
    const Value more = Eval(*e.args[i]->args[0]);
    if (!more.is_mapping()) Fail("argument after ** must be a mapping");
    for (const Value& name : failed() ? std::vector<Value>() : Iterate(more)) {
      if (!name.is_string()) Fail("keywords must be strings");
      if (!failed()) args.named.emplace_back(name.str(), *more.dict().Find(name));
    }
  }
  return args;
}

Value Interpreter::EvalDict(const Expr& e) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i + 1 < e.args.size() && !failed(); i += 2) {
    Value key = Eval(*e.args[i]);
    if (!CheckHashable(key) || !Charge(dict->items.size() / 8)) break;
    dict->Set(std::move(key), Eval(*e.args[i + 1]));
  }
  return Value(std::move(dict));
}

LoopState* Interpreter::NearestLoop() const {
  for (int i = scope_; i >= 0; i = scopes_[i].parent) {
    if (scopes_[i].loop != nullptr) return scopes_[i].loop;
  }
  return nullptr;
}

Value Interpreter::LoopField(const LoopState& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index),
             size = static_cast<int64_t>(loop.items->size());
  if (name == "index") return Value::Int(index + 1);
  if (name == "index0") return Value::Int(index);
  if (name == "revindex") return Value::Int(size - index);
  if (name == "revindex0") return Value::Int(size - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == size);
  if (name == "length") return Value::Int(size);
  // Of recursive loops only, of which there are none here.
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem" && index > 0) return (*loop.items)[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return (*loop.items)[loop.index + 1];
  return Value::MakeUndefined("'loop' has no attribute '" + name + "'");
}

Value Interpreter::CallLoopMethod(LoopState& loop, const std::string& name, const Arguments& args) {
  if (name == "cycle") {
    if (args.positional.empty()) return Fail("no items for cycling given");
    return args.positional[loop.index % args.positional.size()];
  }
  const auto same = [](const std::vector<Value>& a, const std::vector<Value>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const Value& x, const Value& y) { return Equal(x, y); });
  };
  const bool changed = !loop.last_changed || !same(*loop.last_changed, args.positional);
  loop.last_changed = args.positional;
  return Value(changed);
}

Value Interpreter::EvalName(const Expr& e) {
  if (const Value* value = Find(e.name)) return *value;
  if (const LoopState* loop = e.name == "loop" ? NearestLoop() : nullptr) {
    auto fields = std::make_shared<Dict>();
    for (const char* name : {"index", "index0", "first", "last", "length"}) {
      fields->items.emplace_back(Value::Str(name), LoopField(*loop, name));
    }
    return Value(std::move(fields));
  }
  Value global = FindGlobal(e.name);
  return global.is_undefined() ? Value::MakeUndefined("'" + e.name + "' is undefined") : global;
}

Value Interpreter::EvalAttribute(const Expr& e) {
  const Expr& base = *e.args[0];
  if (base.kind == ExprKind::kName && base.name == "loop" && Find("loop") == nullptr) {
    if (const LoopState* loop = NearestLoop()) return LoopField(*loop, e.name);
  }
  const Value object = Eval(base);
  at_ = e.at;
  return GetAttribute(object, e.name);
}

Value Interpreter::EvalCall(const Expr& e) {
  const Expr& target = *e.args[0];
  if (target.kind == ExprKind::kAttribute && target.args[0]->kind == ExprKind::kName &&
      target.args[0]->name == "loop" && (target.name == "cycle" || target.name == "changed") &&
      Find("loop") == nullptr && NearestLoop() != nullptr) {
    const Arguments args = EvalArguments(e);
    LoopState* loop = NearestLoop();
    return failed() ? Value() : CallLoopMethod(*loop, target.name, args);
  }
  if (target.kind == ExprKind::kAttribute) {
    const Value self = Eval(*target.args[0]);
    if (const Operation method = failed() ? nullptr : FindMethod(self, target.name)) {
      const Arguments args = EvalArguments(e);
      at_ = e.at;
      return failed() ? Value() : method(*this, self, args);
    }
  }
  const Value callee = Eval(target);
  const Arguments args = EvalArguments(e);
  if (failed()) return Value();
  at_ = e.at;
  if (callee.is_undefined())
    return Fail(callee.undefined().what.empty() ? "the value called is undefined"
                                                : callee.undefined().what);
  if (!callee.is_callable())
    return Fail("'" + std::string(callee.TypeName()) + "' object is not callable");
  return callee.callable().call(*this, args);
}

Value Interpreter::EvalChain(const Expr& e) {
  if (e.kind == ExprKind::kConcat) {
    std::string text;
    for (const ExprPtr& part : e.args) {
      text += ToText(Eval(*part));
      if (failed() || !Charge(text.size() / 64)) return Value();
    }
    return Str(std::move(text));
  }
  Value value;
  for (const ExprPtr& part : e.args) {
    value = Eval(*part);
    if (value.Truthy() == (e.kind == ExprKind::kOr)) break;
  }
  return value;
}

Value Interpreter::EvalArithmetic(const Expr& e) {
  Value value = Eval(*e.args[0]);
  for (size_t i = 0; i < e.ops.size() && !failed(); ++i) {
    const Value right = Eval(*e.args[i + 1]);
    at_ = e.at;
    if (!failed()) value = Arithmetic(e.ops[i], value, right);
  }
  return value;
}

Value Interpreter::EvalCompare(const Expr& e) {
  Value left = Eval(*e.args[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = Eval(*e.args[i + 1]);
    at_ = e.at;
    if (failed() || !CompareOne(e.ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

bool Interpreter::CompareOne(const std::string& op, const Value& a, const Value& b) {
  if (op == "in") return Contains(b, a);
  if (op == "not in") return !Contains(b, a);
  if (op == "==" || op == "!=") return Equal(a, b) == (op == "==");
  const auto order = Compare(a, b);
  if (!order) {
    Fail("'" + op + "' not supported between '" + std::string(a.TypeName()) + "' and '" +
         std::string(b.TypeName()) + "'");
    return false;
  }
  return op == "<" ? *order < 0 : op == "<=" ? *order <= 0 : op == ">" ? *order > 0 : *order >= 0;
}

Value Interpreter::EvalSlice(const Expr& e) {
  const Value object = Eval(*e.args[0]);
  Value parts[3];
  const Value* given[3] = {};
  for (int i = 0; i < 3; ++i) {
    if (!e.args[i + 1]) continue;
    parts[i] = Eval(*e.args[i + 1]);
    given[i] = &parts[i];
  }
  at_ = e.at;
  return failed() ? Value() : Slice(object, given[0], given[1], given[2]);
}

// With `piped`, the innermost filter of the chain takes it: a filter block's text.
Value Interpreter::EvalFilter(const Expr& e, const Value* piped) {
  if (e.kind != ExprKind::kFilter) return Eval(e);
  const Value input = !e.args[0]         ? *piped
                      : piped != nullptr ? EvalFilter(*e.args[0], piped)
                                         : Eval(*e.args[0]);
  const Arguments args = EvalArguments(e);
  at_ = e.at;
  return failed() ? Value() : ApplyFilter(e.name, input, args);
}

Value Interpreter::ApplyFilter(const std::string& name, const Value& input, const Arguments& args) {
  const Operation filter = FindFilter(name);
  if (filter == nullptr) return Fail("no filter named '" + name + "'");
  return Charge(1) ? filter(*this, input, args) : Value();
}

bool Interpreter::ApplyTest(const std::string& name, const Value& input, const Arguments& args) {
  const Predicate test = FindTest(name);
  if (test == nullptr) Fail("no test named '" + name + "'");
  return test != nullptr && Charge(1) && test(*this, input, args);
}

Value Interpreter::GetAttribute(const Value& object, const std::string& name) {
  if (failed()) return Value();
  if (object.is_undefined())
    return Fail(object.undefined().what.empty() ? "undefined has no attributes"
                                                : object.undefined().what);
  if (const Operation method = FindMethod(object, name)) {
    auto bound = std::make_shared<Callable>();
    bound->name = name;
    bound->call = [method, object](Interpreter& in, const Arguments& args) {
      return method(in, object, args);
    };
    return Value(std::shared_ptr<const Callable>(std::move(bound)));
  }
  const Value* found = object.is_dict() ? object.dict().Find(name) : nullptr;
  if (found != nullptr) return *found;
  if (object.is_list() && object.list_kind() == ListKind::kGroup) {
    if (name == "grouper") return object.list()[0];
    if (name == "list") return object.list()[1];
  }
  return Value::MakeUndefined("'" + std::string(object.TypeName()) + " object' has no attribute '" +
                              name + "'");
}

Value Interpreter::GetItem(const Value& object, const Value& key) {
  if (failed()) return Value();
  if (object.is_undefined())
    return Fail(object.undefined().what.empty() ? "undefined has no items"
                                                : object.undefined().what);
  if (object.is_mapping()) {
    if (const Value* found = key.Hashable() ? object.dict().Find(key) : nullptr) return *found;
  } else if ((object.is_indexed() || object.is_string()) && key.is_integral()) {
    const auto characters =
        object.is_string() ? Characters(object.str()) : std::vector<std::string_view>();
    if (!Charge(characters.size() / 64)) return Value();
    const auto size =
        static_cast<int64_t>(object.is_string() ? characters.size() : object.list().size());
    const int64_t at = key.index() < 0 ? key.index() + size : key.index();
    if (at >= 0 && at < size)
      return object.is_string() ? Value::Str(std::string(characters[at])) : object.list()[at];
  }
  if (key.is_string()) return GetAttribute(object, key.str());
  return Value::MakeUndefined("'" + std::string(object.TypeName()) + " object' has no element " +
                              Repr(key));
}

}  // namespace llmd::text::tmpl
