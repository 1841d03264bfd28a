// Walks over a syntax tree.
#pragma once

#include <functional>

#include "text/template/ast.h"

namespace llmd::text::tmpl {

// Every node of `body` and of the bodies inside, outer before inner.
void ForEachNode(const Body& body, const std::function<void(const Node&)>& visit);
// Every expression in it, outer before inner.
void ForEachExpr(const Body& body, const std::function<void(const Expr&)>& visit);

// Whether messages go in with their content as a list: vLLM's rule. Names assigned from `messages`
// (also filtered or sliced) count as it, the targets of loops over those are messages, and the
// answer is yes when some loop runs over the content of one (also filtered or sliced).
bool LoopsOverContent(const Body& body);

}  // namespace llmd::text::tmpl
