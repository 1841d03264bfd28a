#include "text/template/interpreter.h"

#include <algorithm>
#include <utility>

namespace llmd::text::tmpl {

class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& in, int parent, LoopState* loop = nullptr) : in_(in), outer_(in.scope_) {
    in.scopes_.push_back({{}, parent, in.next_scope_id_++, loop});
    in.scope_ = static_cast<int>(in.scopes_.size()) - 1;
  }
  ~ScopeGuard() {
    in_.scopes_.pop_back();
    in_.scope_ = outer_;
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter& in_;
  const int outer_;
};

Interpreter::~Interpreter() {
  for (const auto& dict : namespaces_) dict->items.clear();
}

StatusOr<std::string> Interpreter::Run(const Body& body, const json::Value& variables) {
  std::string out;
  out_ = &out;
  const ScopeGuard globals(*this, -1);
  for (const auto& [name, value] : variables.AsObject()) Set(name, Value::FromJson(value));
  Exec(body);
  if (failed()) return status_;
  return out;
}

Value Interpreter::Fail(std::string_view message) {
  if (status_.ok()) status_ = TemplateError(at_, message);
  return Value();
}

Value Interpreter::FailPlainly(Status status) {
  if (status_.ok()) status_ = std::move(status);
  return Value();
}

bool Interpreter::Charge(size_t units) {
  if (failed()) return false;
  if (units <= limits_.max_steps - steps_) {
    steps_ += units;
    return true;
  }
  steps_ = limits_.max_steps;
  const std::string message =
      TemplateError(at_, "more than " + std::to_string(limits_.max_steps) + " steps").message();
  FailPlainly(ResourceExhausted(message));
  return false;
}

Value Interpreter::Str(std::string text) {
  return Charge(text.size() / 64 + 1) ? Value::Str(std::move(text)) : Value();
}

Value Interpreter::NewNamespace() {
  auto dict = std::make_shared<Dict>();
  dict->is_namespace = true;
  namespaces_.push_back(dict);
  return Value(std::move(dict));
}

const Value* Interpreter::Find(const std::string& name) const {
  for (int i = scope_; i >= 0; i = scopes_[i].parent) {
    for (const auto& [key, value] : scopes_[i].variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Interpreter::Set(const std::string& name, Value value) {
  auto& variables = scopes_[scope_].variables;
  for (auto& [key, old] : variables) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

void Interpreter::Write(std::string_view text) {
  if (failed() || !Charge(text.size() / 64)) return;
  if (text.size() > limits_.max_output_bytes - std::min(out_->size(), limits_.max_output_bytes)) {
    FailPlainly(ResourceExhausted("template: the output is larger than " +
                                  std::to_string(limits_.max_output_bytes) + " bytes"));
    return;
  }
  out_->append(text);
}

void Interpreter::Exec(const Body& body) {
  for (const NodePtr& node : body) {
    if (failed() || flow_ != Flow::kNormal) return;
    ExecNode(*node);
  }
}

void Interpreter::ExecNode(const Node& node) {
  at_ = node.at;
  if (!Charge(1)) return;
  switch (node.kind) {
    case NodeKind::kText:
      return Write(node.text);
    case NodeKind::kOutput:
      return Write(ToText(Eval(*node.expr)));
    case NodeKind::kFor:
      return ExecFor(node);
    case NodeKind::kIf:
      return ExecIf(node);
    case NodeKind::kSet:
      return ExecSet(node, Eval(*node.expr));
    case NodeKind::kSetBlock: {
      const Value text = Str(Capture(node.body));
      return ExecSet(node, node.expr ? EvalFilter(*node.expr, &text) : text);
    }
    case NodeKind::kMacro:
      return ExecMacro(node);
    case NodeKind::kFilterBlock: {
      const Value text = Str(Capture(node.body));
      return Write(ToText(EvalFilter(*node.expr, &text)));
    }
    case NodeKind::kGeneration:
      return Write(Capture(node.body));
    case NodeKind::kCallBlock:
      return ExecCallBlock(node);
    case NodeKind::kWith:
      return ExecWith(node);
    case NodeKind::kBreak:
      flow_ = Flow::kBreak;
      return;
    case NodeKind::kContinue:
      flow_ = Flow::kContinue;
      return;
  }
}

std::string Interpreter::Capture(const Body& body) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  {
    const ScopeGuard scope(*this, scope_);
    Exec(body);
  }
  out_ = outer;
  return text;
}

void Interpreter::ExecFor(const Node& node) {
  std::vector<Value> items = Filtered(node, Iterate(Eval(*node.expr)));
  if (failed()) return;
  LoopState loop;
  loop.items = &items;
  bool completed = false;  // a round went to its end: without one jinja runs the else branch
  for (; loop.index < items.size() && !failed(); ++loop.index) {
    if (!Charge(1)) return;
    const ScopeGuard scope(*this, scope_, &loop);
    Bind(node.targets, items[loop.index]);
    Exec(node.body);
    const Flow flow = std::exchange(flow_, Flow::kNormal);
    if (flow == Flow::kBreak) break;
    completed = completed || flow == Flow::kNormal;
  }
  if (completed || failed()) return;
  const ScopeGuard scope(*this, scope_);
  Exec(node.otherwise);
}

std::vector<Value> Interpreter::Filtered(const Node& node, std::vector<Value> items) {
  if (!node.condition) return items;
  std::vector<Value> kept;
  for (const Value& item : items) {
    if (!Charge(1)) break;
    const ScopeGuard scope(*this, scope_);
    Bind(node.targets, item);
    if (Eval(*node.condition).Truthy()) kept.push_back(item);
  }
  return kept;
}

void Interpreter::Bind(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) return Set(targets[0], value);
  const std::vector<Value> parts = Iterate(value);
  if (failed()) return;
  if (parts.size() != targets.size()) {
    Fail("cannot unpack " + std::to_string(parts.size()) + " values into " +
         std::to_string(targets.size()) + " names");
    return;
  }
  for (size_t i = 0; i < parts.size(); ++i) Set(targets[i], parts[i]);
}

void Interpreter::ExecIf(const Node& node) {
  for (const Branch& branch : node.branches) {
    if (branch.condition && !Eval(*branch.condition).Truthy()) {
      if (failed()) return;
      continue;
    }
    return Exec(branch.body);
  }
}

void Interpreter::ExecSet(const Node& node, const Value& value) {
  if (failed()) return;
  if (node.text.empty()) return Bind(node.targets, value);
  const Value* target = Find(node.targets[0]);
  if (target == nullptr || !target->is_dict() || !target->dict().is_namespace) {
    Fail("cannot set an attribute of '" + node.targets[0] + "', which is no namespace");
    return;
  }
  target->dict_object().Set(Value::Str(node.text), value);
}

Value Interpreter::MakeMacro(const Node& node) {
  auto macro = std::make_shared<Callable>();
  macro->name = node.text;
  macro->call = [&node, scope = scope_, id = scopes_[scope_].id](Interpreter& in,
                                                                 const Arguments& args) {
    return in.CallMacro(node, scope, id, args);
  };
  return Value(std::shared_ptr<const Callable>(std::move(macro)));
}

void Interpreter::ExecMacro(const Node& node) {
  Set(node.text, MakeMacro(node));
}

void Interpreter::ExecCallBlock(const Node& node) {
  const Expr& call = *node.expr;
  const Value callee = Eval(*call.args[0]);
  Arguments args = EvalArguments(call);
  if (failed()) return;
  if (!callee.is_callable()) {
    Fail("'" + std::string(callee.TypeName()) + "' object is not callable");
    return;
  }
  args.named.emplace_back("caller", MakeMacro(node));
  Write(ToText(callee.callable().call(*this, args)));
}

void Interpreter::ExecWith(const Node& node) {
  std::vector<Value> values;
  for (const Parameter& variable : node.parameters) values.push_back(Eval(*variable.fallback));
  if (failed()) return;
  const ScopeGuard scope(*this, scope_);
  for (size_t i = 0; i < values.size(); ++i) Set(node.parameters[i].name, values[i]);
  Exec(node.body);
}

bool Interpreter::CheckMacroArguments(const Node& node, const Arguments& args) {
  if (args.positional.size() > node.parameters.size() && !node.takes_varargs) {
    Fail("macro '" + node.text + "' takes not more than " + std::to_string(node.parameters.size()) +
         " argument(s)");
    return false;
  }
  for (const auto& [name, value] : args.named) {
    const auto same = [&name = name](const Parameter& p) { return p.name == name; };
    const auto known = std::find_if(node.parameters.begin(), node.parameters.end(), same);
    const auto place = static_cast<size_t>(known - node.parameters.begin());
    const bool twice = known != node.parameters.end() && place < args.positional.size();
    const bool taken = name == "caller" ? node.takes_caller : node.takes_kwargs;
    if (twice || (known == node.parameters.end() && !taken)) {
      Fail("macro '" + node.text + "' takes no keyword argument '" + name + "'");
      return false;
    }
  }
  return true;
}

void Interpreter::BindParameters(const Node& node, const Arguments& args) {
  for (size_t i = 0; i < node.parameters.size(); ++i) {
    const Parameter& p = node.parameters[i];
    const Value* given = args.Get(i, p.name);
    Set(p.name, given != nullptr ? *given
                : p.fallback     ? Eval(*p.fallback)
                             : Value::MakeUndefined("parameter '" + p.name + "' was not provided"));
  }
  if (node.takes_varargs) {
    const size_t used = std::min(args.positional.size(), node.parameters.size());
    Set("varargs", Value::MakeList({args.positional.begin() + static_cast<ptrdiff_t>(used),
                                    args.positional.end()},
                                   ListKind::kTuple));
  }
  auto rest = std::make_shared<Dict>();
  for (const auto& [name, value] : args.named) {
    const auto same = [&name = name](const Parameter& p) { return p.name == name; };
    if (name == "caller") {
      Set("caller", value);
    } else if (std::none_of(node.parameters.begin(), node.parameters.end(), same)) {
      rest->Set(Value::Str(name), value);
    }
  }
  if (node.takes_kwargs) Set("kwargs", Value(std::move(rest)));
}

Value Interpreter::CallMacro(const Node& node, int scope, uint64_t scope_id,
                             const Arguments& args) {
  if (calls_ >= limits_.max_depth) {
    const std::string deep =
        "macros call each other more than " + std::to_string(limits_.max_depth) + " deep";
    return FailPlainly(ResourceExhausted(TemplateError(at_, deep).message()));
  }
  if (!CheckMacroArguments(node, args)) return Value();
  // The scope that defined the macro may be gone; what is left of it then are the globals.
  const bool alive = scope < static_cast<int>(scopes_.size()) && scopes_[scope].id == scope_id;
  ++calls_;
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  {
    const ScopeGuard guard(*this, alive ? scope : 0);
    BindParameters(node, args);
    Exec(node.body);
  }
  out_ = outer;
  --calls_;
  return Str(std::move(text));
}

}  // namespace llmd::text::tmpl
