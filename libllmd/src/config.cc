#include "llmd/config.h"

#include <fstream>

#include "config_document.h"
#include "llmd/nearest.h"

namespace llmd::config {
namespace {

std::string JoinPath(std::string_view parent, std::string_view key) {
  std::string path(parent);
  if (!path.empty()) path += '.';
  path += key;
  return path;
}

json::Value ScalarToJson(const Tree& tree) {
  if (tree.quoted) return tree.scalar;
  if (bool b = false; ReadBool(tree.scalar, &b)) return b;
  if (int64_t i = 0; ReadInt(tree.scalar, &i)) return i;
  if (double d = 0; ReadDouble(tree.scalar, &d)) return d;
  return tree.scalar;
}

json::Value TreeToJson(const Tree& tree) {
  switch (tree.kind) {
    case Tree::Kind::kNull:
      return nullptr;
    case Tree::Kind::kScalar:
      return ScalarToJson(tree);
    case Tree::Kind::kList: {
      json::Array items;
      for (const auto& child : tree.children) items.push_back(TreeToJson(*child.value));
      return items;
    }
    case Tree::Kind::kMap:
      break;
  }
  json::Object members;
  for (const auto& child : tree.children) {
    tree.known.insert(child.key);
    members.emplace_back(child.key, TreeToJson(*child.value));
  }
  return members;
}

bool SameTrees(const Tree& a, const Tree& b) {
  if (a.kind != b.kind || a.quoted != b.quoted || a.scalar != b.scalar ||
      a.children.size() != b.children.size()) {
    return false;
  }
  const auto same_child = [&](const Tree::Child& child, size_t i) {
    const Tree* other = a.kind == Tree::Kind::kMap ? b.Find(child.key) : b.children[i].value.get();
    return other != nullptr && SameTrees(*child.value, *other);
  };
  for (size_t i = 0; i < a.children.size(); ++i) {
    if (!same_child(a.children[i], i)) return false;
  }
  return true;
}

std::string UnknownKeyMessage(const Tree& map, std::string_view key) {
  const std::vector<std::string> known(map.known.begin(), map.known.end());
  std::string message = "unknown key";
  if (!NearestNames(key, known).empty()) {
    message += DidYouMean(key, known);
  } else if (!known.empty()) {
    message += "; known keys:";
    for (size_t i = 0; i < known.size(); ++i) message += (i == 0 ? " " : ", ") + known[i];
  }
  return message;
}

void CheckKnown(const Document& document, const Tree& tree, const std::string& path, bool deep,
                std::string& errors) {
  size_t index = 0;
  for (const auto& child : tree.children) {
    const bool list = tree.kind == Tree::Kind::kList;
    const std::string child_path =
        list ? path + '[' + std::to_string(index++) + ']' : JoinPath(path, child.key);
    if (!list && tree.read && !tree.known.contains(child.key)) {
      if (!errors.empty()) errors += '\n';
      errors += ErrorAt(&document, child.key_line, child_path, UnknownKeyMessage(tree, child.key))
                    .message();
    } else if (deep) {
      CheckKnown(document, *child.value, child_path, true, errors);
    }
  }
}

StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("cannot open configuration file '" + path + "'");
  std::string text(max_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (!file.eof() && file.fail())) {
    return Unavailable("cannot read configuration file '" + path + "'");
  }
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

StatusOr<Node> ParseNamed(std::string_view text, const std::string& source, const Limits& limits) {
  auto document = std::make_shared<Document>();
  document->source = source;
  if (text.size() > limits.max_bytes) {
    return ErrorAt(document.get(), 0, "",
                   "configuration is larger than " + std::to_string(limits.max_bytes) + " bytes");
  }
  LLMD_ASSIGN_OR_RETURN(document->root, ReadYaml(text, limits, *document));
  auto impl = std::make_shared<Node::Impl>();
  impl->tree = document->root.get();
  impl->line = document->root->line;
  impl->document = std::move(document);
  return Node(std::move(impl));
}

}  // namespace

const Tree* Tree::Find(std::string_view key) const {
  for (const Child& child : children) {
    if (child.key == key) return child.value.get();
  }
  return nullptr;
}

Status ErrorAt(const Document* document, int line, std::string_view path,
               std::string_view message) {
  std::string text;
  if (document && !document->source.empty()) text += document->source + ": ";
  if (line > 0) text += "line " + std::to_string(line) + ": ";
  if (!path.empty()) text.append(path).append(": ");
  text += message;
  return InvalidArgument(std::move(text));
}

Node::Node() : impl_(std::make_shared<const Impl>()) {}

bool Node::IsNull() const {
  return !impl_->tree || impl_->tree->kind == Tree::Kind::kNull;
}
bool Node::IsMap() const {
  return impl_->tree && impl_->tree->kind == Tree::Kind::kMap;
}
bool Node::IsList() const {
  return impl_->tree && impl_->tree->kind == Tree::Kind::kList;
}
bool Node::IsScalar() const {
  return impl_->tree && impl_->tree->kind == Tree::Kind::kScalar;
}
const std::string& Node::path() const {
  return impl_->path;
}
int Node::line() const {
  return impl_->line;
}

Node Node::Get(std::string_view key) const {
  auto child = std::make_shared<Impl>();
  child->document = impl_->document;
  child->path = JoinPath(impl_->path, key);
  child->line = impl_->line;
  if (IsMap()) {
    impl_->tree->read = true;
    impl_->tree->known.emplace(key);
    child->tree = impl_->tree->Find(key);
    if (child->tree) child->line = child->tree->line;
  }
  return Node(std::move(child));
}

bool Node::Has(std::string_view key) const {
  return Get(key).impl_->tree != nullptr;
}

std::vector<Node> Node::Items() const {
  std::vector<Node> out;
  if (!IsList()) return out;
  for (const auto& child : impl_->tree->children) {
    const std::string path = impl_->path + '[' + std::to_string(out.size()) + ']';
    out.emplace_back(std::make_shared<const Impl>(
        Impl{impl_->document, child.value.get(), path, child.value->line}));
  }
  return out;
}

std::vector<std::pair<std::string, Node>> Node::Members() const {
  std::vector<std::pair<std::string, Node>> out;
  if (!IsMap()) return out;
  impl_->tree->read = true;
  for (const auto& child : impl_->tree->children) out.emplace_back(child.key, Get(child.key));
  return out;
}

Status Node::RejectUnknown(bool deep) const {
  if (!impl_->tree) return OkStatus();
  if (IsMap()) impl_->tree->read = true;
  std::string errors;
  CheckKnown(*impl_->document, *impl_->tree, impl_->path, deep, errors);
  return errors.empty() ? OkStatus() : InvalidArgument(std::move(errors));
}

Status Node::Error(std::string_view message) const {
  return ErrorAt(impl_->document.get(), impl_->line, impl_->path, message);
}

json::Value Node::ToJson() const {
  return impl_->tree ? TreeToJson(*impl_->tree) : json::Value();
}

bool Node::SameAs(const Node& other) const {
  if (IsNull() || other.IsNull()) return IsNull() == other.IsNull();
  return SameTrees(*impl_->tree, *other.impl_->tree);
}

StatusOr<Node> Parse(std::string_view text, Limits limits) {
  return ParseNamed(text, "", limits);
}

StatusOr<Node> ParseFile(const std::string& path, Limits limits) {
  LLMD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits.max_bytes));
  return ParseNamed(text, path, limits);
}

}  // namespace llmd::config
