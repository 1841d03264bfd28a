#include "llmd/text/chat_template.h"

#include <algorithm>
#include <string>
#include <vector>

#include "text/template/interpreter.h"
#include "text/template/parser.h"

namespace llmd::text {
namespace {

using tmpl::Body;
using tmpl::Expr;
using tmpl::ExprKind;
using tmpl::Node;
using tmpl::NodeKind;

// Looks for `for part in message.content`, also through a variable set from it.
class ContentLoopFinder {
 public:
  bool Search(const Body& body) {
    return std::any_of(body.begin(), body.end(),
                       [this](const auto& node) { return SearchNode(*node); });
  }

 private:
  bool SearchNode(const Node& node) {
    if (node.kind == NodeKind::kSet && node.text.empty() && IsContent(*node.expr)) {
      names_.insert(names_.end(), node.targets.begin(), node.targets.end());
    }
    if (node.kind == NodeKind::kFor && IsContent(*node.expr)) return true;
    for (const auto& branch : node.branches) {
      if (Search(branch.body)) return true;
    }
    return Search(node.body) || Search(node.otherwise);
  }
  bool IsContent(const Expr& e) const {
    switch (e.kind) {
      case ExprKind::kAttribute:
        return e.name == "content";
      case ExprKind::kSubscript:
        return e.args[1]->literal.is_string() && e.args[1]->literal.str() == "content";
      case ExprKind::kName:
        return std::find(names_.begin(), names_.end(), e.name) != names_.end();
      case ExprKind::kSlice:
      case ExprKind::kFilter:
        return e.args[0] && IsContent(*e.args[0]);
      default:
        return false;
    }
  }
  std::vector<std::string> names_;
};

}  // namespace

struct ChatTemplate::Impl {
  TemplateLimits limits;
  Body body;
  bool content_is_list = false;
};

ChatTemplate::ChatTemplate() = default;
ChatTemplate::~ChatTemplate() = default;

StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                            TemplateLimits limits) {
  std::unique_ptr<ChatTemplate> made(new ChatTemplate);
  made->impl_ = std::make_unique<Impl>();
  LLMD_ASSIGN_OR_RETURN(made->impl_->body, tmpl::ParseTemplate(source, limits.max_depth));
  made->impl_->limits = limits;
  made->impl_->content_is_list = ContentLoopFinder().Search(made->impl_->body);
  return made;
}

StatusOr<std::string> ChatTemplate::Render(const json::Value& variables) const {
  return tmpl::Interpreter(impl_->limits).Run(impl_->body, variables);
}

bool ChatTemplate::content_is_list() const {
  return impl_->content_is_list;
}

}  // namespace llmd::text
