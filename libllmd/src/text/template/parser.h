// Template text → syntax tree. Nesting is bounded so that neither parsing nor walking the tree can
// exhaust the stack.
#pragma once

#include "text/template/ast.h"

namespace llmd::text::tmpl {

// INVALID_ARGUMENT with line and column.
StatusOr<Body> ParseTemplate(std::string_view source, int max_depth);

}  // namespace llmd::text::tmpl
