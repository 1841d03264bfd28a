#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <map>
#include <optional>
#include <streambuf>

#include "config_document.h"

namespace llmd::config {
namespace {

// Paths are built from keys, so a long one would be copied into every path below it.
constexpr size_t kMaxKeyBytes = 1024;

// Carries a Status out of yaml-cpp, which offers its event handler no other way to stop; never
// leaves this file.
struct Stop {
  Status status;
};

class MemoryStream : public std::streambuf {
 public:
  explicit MemoryStream(std::string_view text) {
    char* begin = const_cast<char*>(text.data());
    setg(begin, begin, begin + text.size());
  }
};

class Builder final : public YAML::EventHandler {
 public:
  Builder(const Limits& limits, const Document& document) : limits_(limits), document_(document) {}

  std::unique_ptr<Tree> TakeRoot() { return root_ ? std::move(root_) : std::make_unique<Tree>(); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Place(NewTree(Tree::Kind::kNull, mark), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (ExpectsKey()) {
      TakeKey(mark, value, anchor);
      return;
    }
    auto tree = NewTree(Tree::Kind::kScalar, mark);
    tree->quoted = IsStringTag(mark, tag);
    tree->scalar = value;
    if (!tree->quoted && IsNullText(value)) tree->kind = Tree::Kind::kNull;
    Place(std::move(tree), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (ExpectsKey()) Fail(mark, "an alias cannot be a key");
    const auto it = anchors_.find(anchor);
    // An anchor is recorded once its node is complete, so an alias inside its own node is not
    // found.
    if (it == anchors_.end()) Fail(mark, "this alias stands inside the node it names");
    Place(Copy(*it->second, mark, open_.size()), YAML::NullAnchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(Tree::Kind::kList, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(Tree::Kind::kMap, mark, tag, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    std::unique_ptr<Tree> tree;
    YAML::anchor_t anchor;
    std::optional<Tree::Child> pending;  // a key that waits for its value
    std::set<std::string, std::less<>> keys;
  };

  static int LineOf(const YAML::Mark& mark) { return mark.line + 1; }

  [[noreturn]] void Fail(const YAML::Mark& mark, std::string_view message) const {
    throw Stop{ErrorAt(&document_, LineOf(mark), PathHere(), message)};
  }

  std::string PathHere() const {
    std::string path;
    for (const Level& level : open_) {
      if (level.tree->kind == Tree::Kind::kList) {
        path += '[' + std::to_string(level.tree->children.size()) + ']';
      } else if (level.pending) {
        path += (path.empty() ? "" : ".") + level.pending->key;
      }
    }
    return path;
  }

  bool ExpectsKey() const {
    return !open_.empty() && open_.back().tree->kind == Tree::Kind::kMap && !open_.back().pending;
  }

  bool IsStringTag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return true;
    if (tag.empty() || tag == "?") return false;
    Fail(mark, "the tag '" + tag + "' is not supported");
  }

  std::unique_ptr<Tree> NewTree(Tree::Kind kind, const YAML::Mark& mark) {
    if (++nodes_ > limits_.max_nodes) {
      Fail(mark, "more than " + std::to_string(limits_.max_nodes) + " nodes, aliases expanded");
    }
    auto tree = std::make_unique<Tree>();
    tree->kind = kind;
    tree->line = LineOf(mark);
    return tree;
  }

  void TakeKey(const YAML::Mark& mark, const std::string& key, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) Fail(mark, "an anchor on a key is not supported");
    if (key == "<<") Fail(mark, "merge keys (<<) are not supported");
    if (key.size() > kMaxKeyBytes) Fail(mark, "a key of more than 1024 bytes");
    Level& level = open_.back();
    const bool fresh = level.keys.insert(key).second;
    level.pending = Tree::Child{key, LineOf(mark), nullptr};
    if (!fresh) Fail(mark, "the key stands twice");
  }

  void Place(std::unique_ptr<Tree> tree, YAML::anchor_t anchor) {
    const Tree* placed = tree.get();
    if (open_.empty()) {
      root_ = std::move(tree);
    } else if (Level& level = open_.back(); level.tree->kind == Tree::Kind::kList) {
      level.tree->children.push_back({"", 0, std::move(tree)});
    } else {
      if (!level.pending) {
        throw Stop{ErrorAt(&document_, tree->line, PathHere(), "a key must be a scalar")};
      }
      level.pending->value = std::move(tree);
      level.tree->children.push_back(std::move(*level.pending));
      level.pending.reset();
    }
    if (anchor != YAML::NullAnchor) anchors_[anchor] = placed;
  }

  void Open(Tree::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      Fail(mark, "the tag '" + tag + "' is not supported");
    }
    if (ExpectsKey()) Fail(mark, "a key must be a scalar");
    CheckDepth(mark, open_.size() + 1);
    open_.push_back({NewTree(kind, mark), anchor, std::nullopt, {}});
  }

  void Close() {
    Level level = std::move(open_.back());
    open_.pop_back();
    Place(std::move(level.tree), level.anchor);
  }

  void CheckDepth(const YAML::Mark& mark, size_t depth) const {
    if (depth > static_cast<size_t>(std::max(limits_.max_depth, 0))) {
      Fail(mark, "nested more than " + std::to_string(limits_.max_depth) + " deep");
    }
  }

  std::unique_ptr<Tree> Copy(const Tree& from, const YAML::Mark& mark, size_t depth) {
    auto tree = NewTree(from.kind, mark);
    tree->line = from.line;
    tree->quoted = from.quoted;
    tree->scalar = from.scalar;
    CopiedBytes(mark, from.scalar.size());
    if (!from.children.empty()) CheckDepth(mark, depth + 1);
    for (const Tree::Child& child : from.children) {
      CopiedBytes(mark, child.key.size());
      tree->children.push_back({child.key, child.key_line, Copy(*child.value, mark, depth + 1)});
    }
    return tree;
  }

  // Long scalars multiply as nodes do.
  void CopiedBytes(const YAML::Mark& mark, size_t bytes) {
    copied_bytes_ += bytes;
    if (copied_bytes_ > limits_.max_bytes) {
      Fail(mark, "aliases expand to more than " + std::to_string(limits_.max_bytes) + " bytes");
    }
  }

  const Limits limits_;
  const Document& document_;
  std::unique_ptr<Tree> root_;
  std::vector<Level> open_;
  std::map<YAML::anchor_t, const Tree*> anchors_;
  size_t nodes_ = 0;
  size_t copied_bytes_ = 0;
};

}  // namespace

StatusOr<std::unique_ptr<Tree>> ReadYaml(std::string_view text, const Limits& limits,
                                         const Document& document) {
  try {
    MemoryStream buffer(text);
    std::istream stream(&buffer);
    YAML::Parser parser(stream);
    Builder builder(limits, document);
    parser.HandleNextDocument(builder);
    auto root = builder.TakeRoot();
    Builder rest(limits, document);
    if (parser.HandleNextDocument(rest)) {
      return ErrorAt(&document, 0, "", "several documents in one text; expected one");
    }
    return root;
  } catch (const Stop& stop) {
    return stop.status;
  } catch (const YAML::Exception& e) {
    return ErrorAt(&document, e.mark.is_null() ? 0 : e.mark.line + 1, "", "YAML: " + e.msg);
  } catch (const std::exception& e) {
    return ErrorAt(&document, 0, "", std::string("YAML: ") + e.what());
  }
}

}  // namespace llmd::config
