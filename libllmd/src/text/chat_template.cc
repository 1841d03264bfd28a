#include "llmd/text/chat_template.h"

#include <algorithm>
#include <string>
#include <vector>

#include "text/template/interpreter.h"
#include "text/template/parser.h"
#include "text/template/visit.h"

namespace llmd::text {

struct ChatTemplate::Impl {
  TemplateLimits limits;
  tmpl::Body body;
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
  made->impl_->content_is_list = tmpl::LoopsOverContent(made->impl_->body);
  return made;
}

StatusOr<std::string> ChatTemplate::Render(const json::Value& variables) const {
  return tmpl::Interpreter(impl_->limits).Run(impl_->body, variables);
}

bool ChatTemplate::content_is_list() const {
  return impl_->content_is_list;
}

bool ChatTemplate::HasLiteral(std::string_view text) const {
  bool found = false;
  tmpl::ForEachExpr(impl_->body, [&](const tmpl::Expr& e) {
    found = found || (e.kind == tmpl::ExprKind::kLiteral && e.literal.is_string() &&
                      e.literal.str() == text);
  });
  return found;
}

void ChatTemplates::Add(std::string_view name, std::string_view source) {
  const std::string_view key = name.empty() ? "default" : name;
  auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok())
    parsed = parsed.status().WithContext("chat template '" + std::string(key) + "'");
  std::erase_if(templates_, [key](const auto& entry) { return entry.first == key; });
  templates_.emplace_back(key, std::move(parsed));
}

Status ChatTemplates::fault() const {
  for (const auto& [name, parsed] : templates_) LLMD_RETURN_IF_ERROR(parsed.status());
  return OkStatus();
}

StatusOr<const ChatTemplate*> ChatTemplates::Choose(bool with_tools) const {
  const auto has = [this](std::string_view name) {
    return std::any_of(templates_.begin(), templates_.end(),
                       [name](const auto& entry) { return entry.first == name; });
  };
  return Find(with_tools && has("tool_use") ? "tool_use" : "default");
}

StatusOr<const ChatTemplate*> ChatTemplates::Find(std::string_view name) const {
  std::string known;
  for (const auto& [key, parsed] : templates_) {
    known += (known.empty() ? "" : ", ") + key;
    if (key != name) continue;
    LLMD_RETURN_IF_ERROR(parsed.status());
    return static_cast<const ChatTemplate*>(parsed->get());
  }
  if (known.empty()) return NotFound("the model has no chat template");
  return NotFound("the model has no chat template named '" + std::string(name) +
                  "', its templates are: " + known);
}

}  // namespace llmd::text
