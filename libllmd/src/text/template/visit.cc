#include "text/template/visit.h"

#include <set>
#include <string>
#include <string_view>

namespace llmd::text::tmpl {
namespace {

void VisitExpr(const Expr* e, const std::function<void(const Expr&)>& visit) {
  if (e == nullptr) return;
  visit(*e);
  for (const ExprPtr& part : e->args) VisitExpr(part.get(), visit);
  for (const auto& [name, value] : e->named) VisitExpr(value.get(), visit);
}

// What a filter, a test or a slice is applied to.
const Expr& Stripped(const Expr& e) {
  const Expr* at = &e;
  while ((at->kind == ExprKind::kFilter || at->kind == ExprKind::kTest ||
          at->kind == ExprKind::kSlice) &&
         at->args[0]) {
    at = at->args[0].get();
  }
  return *at;
}

bool IsNameIn(const Expr& e, const std::set<std::string>& names) {
  return e.kind == ExprKind::kName && names.contains(e.name);
}

bool IsContentOf(const Expr& e, const std::set<std::string>& messages) {
  if (e.kind == ExprKind::kAttribute) return e.name == "content" && IsNameIn(*e.args[0], messages);
  if (e.kind != ExprKind::kSubscript || !IsNameIn(*e.args[0], messages)) return false;
  const Expr& key = *e.args[1];
  return key.kind == ExprKind::kLiteral && key.literal.is_string() &&
         key.literal.str() == "content";
}

// Names that hold the list of messages: `messages`, and what is set from such a name.
std::set<std::string> ListNames(const Body& body) {
  std::set<std::string> names = {"messages"};
  for (size_t before = 0; before != names.size();) {
    before = names.size();
    ForEachNode(body, [&](const Node& node) {
      if (node.kind == NodeKind::kSet && node.text.empty() && node.targets.size() == 1 &&
          IsNameIn(Stripped(*node.expr), names)) {
        names.insert(node.targets[0]);
      }
    });
  }
  return names;
}

}  // namespace

void ForEachNode(const Body& body, const std::function<void(const Node&)>& visit) {
  for (const NodePtr& node : body) {
    visit(*node);
    for (const Branch& branch : node->branches) ForEachNode(branch.body, visit);
    ForEachNode(node->body, visit);
    ForEachNode(node->otherwise, visit);
  }
}

void ForEachExpr(const Body& body, const std::function<void(const Expr&)>& visit) {
  ForEachNode(body, [&](const Node& node) {
    VisitExpr(node.expr.get(), visit);
    VisitExpr(node.condition.get(), visit);
    for (const Branch& branch : node.branches) VisitExpr(branch.condition.get(), visit);
    for (const Parameter& parameter : node.parameters) VisitExpr(parameter.fallback.get(), visit);
  });
}

bool LoopsOverContent(const Body& body) {
  const std::set<std::string> lists = ListNames(body);
  std::set<std::string> messages;
  ForEachNode(body, [&](const Node& node) {
    if (node.kind == NodeKind::kFor && node.targets.size() == 1 &&
        IsNameIn(Stripped(*node.expr), lists)) {
      messages.insert(node.targets[0]);
    }
  });
  bool found = false;
  ForEachNode(body, [&](const Node& node) {
    found = found || (node.kind == NodeKind::kFor && node.targets.size() == 1 &&
                      IsContentOf(Stripped(*node.expr), messages));
  });
  return found;
}

}  // namespace llmd::text::tmpl
