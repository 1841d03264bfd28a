// The tree behind config::Node: one owner, alias-free, with lines, and a note of which keys were
// asked for.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/config.h"

namespace llmd::config {

struct Tree {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Child {
    std::string key;  // empty in lists
    int key_line = 0;
    std::unique_ptr<Tree> value;
  };

  Kind kind = Kind::kNull;
  bool quoted = false;  // a scalar that is a string whatever it looks like
  int line = 0;         // 1-based
  std::string scalar;
  std::vector<Child> children;
  // What the reader asked for. Reading a document is not thread-safe, its tree is not shared
  // between threads.
  mutable bool read = false;
  mutable std::set<std::string, std::less<>> known;

  const Tree* Find(std::string_view key) const;
};

struct Document {
  std::string source;  // a file name, or empty
  std::unique_ptr<Tree> root;
};

// One place in a document, whether or not something stands there.
struct Node::Impl {
  std::shared_ptr<const Document> document;
  const Tree* tree = nullptr;  // null: absent
  std::string path;
  int line = 0;  // of the nearest thing that stands
};

// "[source: ]line N: [path: ]message".
Status ErrorAt(const Document* document, int line, std::string_view path, std::string_view message);

// The YAML 1.2 core schema for plain scalars.
bool IsNullText(std::string_view text);
bool ReadBool(std::string_view text, bool* out);
bool ReadInt(std::string_view text, int64_t* out);
bool ReadDouble(std::string_view text, double* out);

// Reads `text` into a tree; yaml-cpp stays behind this.
StatusOr<std::unique_ptr<Tree>> ReadYaml(std::string_view text, const Limits& limits,
                                         const Document& document);

}  // namespace llmd::config
