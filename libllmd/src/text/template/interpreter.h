// Walks a syntax tree and writes the rendered text. One per render; errors are sticky: after the
// first, every operation gives undefined and every loop ends.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/text/chat_template.h"
#include "text/template/ast.h"

namespace llmd::text::tmpl {

struct LoopState {
  const std::vector<Value>* items = nullptr;
  size_t index = 0;
  std::optional<std::vector<Value>> last_changed;  // what loop.changed was asked last
};

class Interpreter {
 public:
  explicit Interpreter(const TemplateLimits& limits) : limits_(limits) {}
  ~Interpreter();
  StatusOr<std::string> Run(const Body& body, const json::Value& variables);

  // For filters, tests, methods and functions.
  Value Fail(std::string_view message);  // with the position of what is being evaluated
  Value FailPlainly(Status status);
  bool failed() const { return !status_.ok(); }
  // Pays for work or memory, a unit per item or 64 bytes; false (and failed) when the budget is
  // spent.
  bool Charge(size_t units);
  Value Str(std::string text);
  Value NewNamespace();
  Value GetAttribute(const Value& object, const std::string& name);
  Value GetItem(const Value& object, const Value& key);
  Value ApplyFilter(const std::string& name, const Value& input, const Arguments& args);
  bool ApplyTest(const std::string& name, const Value& input, const Arguments& args);
  // The items a `for` walks: characters of a string, keys of a dict. Fails on what cannot be
  // iterated.
  std::vector<Value> Iterate(const Value& value);
  bool Contains(const Value& container, const Value& item);
  // Fails for what cannot be a key.
  bool CheckHashable(const Value& key);
  Value Arithmetic(const std::string& op, const Value& a, const Value& b);
  Value Slice(const Value& object, const Value* start, const Value* stop, const Value* step);

 private:
  struct Scope {
    std::vector<std::pair<std::string, Value>> variables;
    int parent = -1;
    uint64_t id = 0;
    LoopState* loop = nullptr;
  };
  class ScopeGuard;
  class DepthGuard;
  enum class Flow { kNormal, kBreak, kContinue };

  void Exec(const Body& body);
  void ExecNode(const Node& node);
  void ExecFor(const Node& node);
  std::vector<Value> Filtered(const Node& node, std::vector<Value> items);
  void ExecIf(const Node& node);
  void ExecSet(const Node& node, const Value& value);
  void ExecMacro(const Node& node);
  void ExecCallBlock(const Node& node);
  void ExecWith(const Node& node);
  Value MakeMacro(const Node& node);
  bool CheckMacroArguments(const Node& node, const Arguments& args);
  void BindParameters(const Node& node, const Arguments& args);
  Value CallMacro(const Node& node, int scope, uint64_t scope_id, const Arguments& args);
  std::string Capture(const Body& body);
  void Bind(const std::vector<std::string>& targets, const Value& value);
  void Write(std::string_view text);

  Value Eval(const Expr& e);
  Value EvalKind(const Expr& e);
  Value EvalName(const Expr& e);
  Value EvalAttribute(const Expr& e);
  Value EvalCall(const Expr& e);
  Value EvalChain(const Expr& e);
  Value EvalArithmetic(const Expr& e);
  Value EvalCompare(const Expr& e);
  bool CompareOne(const std::string& op, const Value& a, const Value& b);
  Value EvalSlice(const Expr& e);
  Value EvalFilter(const Expr& e, const Value* piped);
  Value EvalDict(const Expr& e);
  std::vector<Value> EvalAll(const std::vector<ExprPtr>& exprs, size_t from);
  Arguments EvalArguments(const Expr& e);
  Value LoopField(const LoopState& loop, const std::string& name);
  Value CallLoopMethod(LoopState& loop, const std::string& name, const Arguments& args);
  LoopState* NearestLoop() const;
  const Value* Find(const std::string& name) const;
  void Set(const std::string& name, Value value);

  const TemplateLimits& limits_;
  Status status_;
  Position at_;
  size_t steps_ = 0;
  int depth_ = 0;
  int calls_ = 0;
  uint64_t next_scope_id_ = 0;
  Flow flow_ = Flow::kNormal;
  std::string* out_ = nullptr;
  std::vector<Scope> scopes_;
  int scope_ = -1;
  std::vector<std::shared_ptr<Dict>> namespaces_;  // emptied at the end, as they can form cycles
};

using Operation = Value (*)(Interpreter&, const Value& self, const Arguments&);
// Null pointer for an unknown name. The filters of sequences have a table of their own.
Operation FindSequenceFilter(std::string_view name);
Operation FindFilter(std::string_view name);
Operation FindMethod(const Value& self, std::string_view name);
Operation FindStringMethod(std::string_view name);
// "a.b.0" from an item; `path` is text or a place.
Value AttributePath(Interpreter& in, Value item, const Value& path);
using Predicate = bool (*)(Interpreter&, const Value& self, const Arguments&);
Predicate FindTest(std::string_view name);
// namespace, raise_exception, range, dict, strftime_now; undefined for another name.
Value FindGlobal(const std::string& name);

}  // namespace llmd::text::tmpl
